"""Two groups of runs that are not paired: Mann-Whitney's U test and Welch's interval."""

from math import comb
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from bla.inference.paired import Interval

Array = NDArray[np.float64]


class UnpairedTest(NamedTuple):
    """Two groups compared: p of Mann-Whitney's U, rank-biserial correlation, and x - y with its 95 % interval."""

    p: float
    effect_size: float
    difference: float
    interval: Interval


def mann_whitney(x: Array, y: Array) -> UnpairedTest:
    """Mann-Whitney's U test, two-sided, and Welch's t interval of the difference of means.

    p is exact without ties; with ties it is scipy's normal approximation, corrected for ties; 1 if all values are
    equal. The effect size is P(x > y) - P(x < y). The interval is NaN if a group has fewer than two values.
    """
    difference, interval = float(x.mean() - y.mean()), _welch(x, y)
    if np.ptp(np.concatenate([x, y])) == 0:
        return UnpairedTest(1.0, 0.0, 0.0, interval)
    test = stats.mannwhitneyu(x, y, alternative="two-sided", method="auto")
    effect = 2 * float(test.statistic) / (len(x) * len(y)) - 1
    return UnpairedTest(float(test.pvalue), effect, difference, interval)


def _welch(x: Array, y: Array) -> Interval:
    if min(len(x), len(y)) < 2:
        return Interval(np.nan, np.nan)
    if np.ptp(x) == np.ptp(y) == 0:
        return Interval(float(x[0] - y[0]), float(x[0] - y[0]))
    low, high = stats.ttest_ind(x, y, equal_var=False).confidence_interval(0.95)
    return Interval(float(low), float(high))


def smallest_mann_whitney_p(x: int, y: int) -> float:
    """The smallest two-sided p of groups of these sizes, if all values of one are larger than all of the other."""
    return min(1.0, 2 / comb(x + y, x))
