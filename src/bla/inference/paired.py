"""Statistics of paired runs: tests, corrected p values, effect sizes, and intervals.

    a, b = Column(...), Column(...)                 # 20 runs each, run r of both from the same head
    wilcoxon(a.measure("accuracy"), b.measure("accuracy")).p

Run r of one column and run r of another form a pair. Runs on one split say nothing about other images, so there is an
interval over runs, and one over runs and images.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class PairedTest(NamedTuple):
    """A paired comparison: p, the number of pairs that differ, and the matched-pairs rank-biserial correlation."""

    p: float
    nonzero_pairs: int
    effect_size: float


class SpreadTest(NamedTuple):
    """A comparison of spreads: its p, and a correlation that is positive if x varies more than y."""

    p: float
    correlation: float


class Interval(NamedTuple):
    """A 95 % interval."""

    low: float
    high: float


EXACT = 200
"""Wilcoxon's p is exact up to this many pairs: enough for runs, not always for images."""


def standard_error(values: Array) -> Array:
    """Standard error of the mean over the first axis, `s / sqrt(n)` with n - 1 in s."""
    result: Array = np.std(values, axis=0, ddof=1) / np.sqrt(len(values))
    return result


def wilcoxon(x: Array, y: Array) -> PairedTest:
    """Wilcoxon's signed-rank test of paired values, two-sided; exact up to `EXACT` pairs.

    Zero differences are dropped; ties get average ranks, and p comes from all 2^n sign patterns (scipy's exact method
    allows no ties), beyond `EXACT` pairs from scipy's normal approximation. p is 1 when no pair differs. The effect
    size is (W+ - W-) / (W+ + W-), positive where x is larger.
    """
    difference = np.asarray(x) - np.asarray(y)
    difference = difference[difference != 0]
    if len(difference) == 0:
        return PairedTest(1.0, 0, 0.0)
    from scipy import stats  # takes half a second, which stages without tests save

    ranks = np.rint(2 * stats.rankdata(np.abs(difference))).astype(int)  # doubled, so that average ranks are integers
    positive, total = int(ranks[difference > 0].sum()), int(ranks.sum())
    if len(difference) > EXACT:
        p = float(stats.wilcoxon(difference, method="approx").pvalue)
        return PairedTest(p, len(difference), (2 * positive - total) / total)
    patterns = np.ones(1)  # share of the sign patterns that give each value of W+
    for rank in ranks:
        patterns = (np.pad(patterns, (0, rank)) + np.pad(patterns, (rank, 0))) / 2
    extreme = min(positive, total - positive)
    p = min(1.0, 2 * float(patterns[: extreme + 1].sum()))
    return PairedTest(p, len(difference), (2 * positive - total) / total)


def mcnemar(x: NDArray[np.bool_], y: NDArray[np.bool_]) -> PairedTest:
    """McNemar's exact test, two-sided, of two classifiers' correctness bool `[N]` on the same images.

    p is 1 when no image differs. The effect size is (b - c) / (b + c) of the b images that only x gets right and the c
    that only y does.
    """
    more, fewer = int((x & ~y).sum()), int((y & ~x).sum())
    if more + fewer == 0:
        return PairedTest(1.0, 0, 0.0)
    from scipy import stats  # takes half a second, which stages without tests save

    p = float(stats.binomtest(more, more + fewer).pvalue)
    return PairedTest(p, more + fewer, (more - fewer) / (more + fewer))


def smallest_p(pairs: int) -> float:
    """The smallest two-sided p of a signed-rank or sign test: of this number of pairs, all with the same sign."""
    return min(1.0, 2.0 ** (1 - pairs))


def holm(p: Array) -> Array:
    """Holm's correction of a family of p values."""
    from statsmodels.stats.multitest import multipletests

    return np.asarray(multipletests(p, method="holm")[1], dtype=np.float64) if len(p) else np.asarray(p)


def student(values: Array) -> Interval:
    """Student's t interval of the mean over runs `[R]`; NaN of fewer than two runs.

    A percentile bootstrap of 3, 5 or 8 runs covers the mean in 75, 85 or 89 % instead of 95 %.
    """
    return crossed(values[None, :, None])[0]


def crossed(values: Array) -> list[Interval]:
    """Intervals of the means over runs and images, both random, of K quantities `[K, R, N]`; NaN of fewer than two runs.

    The variances of the mean over runs and of the mean over images add up. Student's t has Welch and Satterthwaite's
    degrees of freedom, those of the runs if the images do not vary or if there is one. Noise of each run and image
    counts in both, so that intervals are slightly too wide (as in Owen 2007).
    """
    from scipy import stats  # takes half a second, which stages without intervals save

    means = values.mean(axis=(1, 2))
    if values.shape[1] < 2:
        return [Interval(np.nan, np.nan)] * len(means)
    variances, freedom = np.zeros((2, len(means))), np.ones((2, 1))
    for row, other in enumerate((2, 1)):
        over_other = values.mean(axis=other)  # [K, R], then [K, N]
        if over_other.shape[1] > 1:
            freedom[row] = over_other.shape[1] - 1
            variances[row] = standard_error(over_other.T) ** 2
    total = variances.sum(axis=0)
    shares = np.divide(variances, total, out=np.ones_like(variances), where=total > 0)
    reach = stats.t.ppf(0.975, 1 / (shares**2 / freedom).sum(axis=0)) * np.sqrt(total)
    return [Interval(float(mean - r), float(mean + r)) for mean, r in zip(means, reach, strict=True)]


def bootstrap_spread_ratio(x: Array, y: Array, resamples: int, seed: int) -> Interval:
    """Percentile bootstrap of the ratio of standard deviations sd(x) / sd(y) over paired runs `[R]`.

    NaN if y has no spread in some resample, because then the ratio has no interval.
    """
    rng = np.random.default_rng(seed)
    chosen = rng.integers(0, len(x), (resamples, len(x)))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = x[chosen].std(axis=1, ddof=1) / y[chosen].std(axis=1, ddof=1)
    return _percentiles(ratios) if np.isfinite(ratios).all() else Interval(np.nan, np.nan)


def pitman_morgan(x: Array, y: Array) -> SpreadTest:
    """The Pitman-Morgan test of equal variances of paired values: the correlation of x + y with x - y (Morgan 1939).

    p is 1 and the correlation 0 if x + y or x - y is constant, as when neither varies.
    """
    from scipy import stats

    total, difference = x + y, x - y
    if np.ptp(total) <= 1e-12 * np.abs(total).max() or np.ptp(difference) <= 1e-12 * np.abs(total).max():
        return SpreadTest(1.0, 0.0)
    correlation, p = stats.pearsonr(total, difference)
    return SpreadTest(float(p), float(correlation))


def absolute_deviation(values: Array) -> float:
    """The median absolute deviation from the median, which single values do not change."""
    return float(np.median(np.abs(values - np.median(values))))


def _percentiles(values: Array) -> Interval:
    low, high = np.quantile(values, [0.025, 0.975])
    return Interval(float(low), float(high))
