"""Two groups of runs that are not paired: Mann-Whitney's U test and a bootstrap of both groups."""

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


def mann_whitney(x: Array, y: Array, resamples: int, seed: int) -> UnpairedTest:
    """Mann-Whitney's U test, two-sided, and a percentile bootstrap of the difference of means, both groups resampled.

    p is exact without ties; with ties it is scipy's normal approximation, corrected for ties; 1 if all values are
    equal. The effect size is P(x > y) - P(x < y).
    """
    rng = np.random.default_rng(seed)
    means = [values[rng.integers(0, len(values), (resamples, len(values)))].mean(axis=1) for values in (x, y)]
    low, high = np.quantile(means[0] - means[1], [0.025, 0.975])
    if np.ptp(np.concatenate([x, y])) == 0:
        return UnpairedTest(1.0, 0.0, 0.0, Interval(float(low), float(high)))
    test = stats.mannwhitneyu(x, y, alternative="two-sided", method="auto")
    effect = 2 * float(test.statistic) / (len(x) * len(y)) - 1
    return UnpairedTest(float(test.pvalue), effect, float(x.mean() - y.mean()), Interval(float(low), float(high)))
