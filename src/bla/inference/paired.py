"""Statistics of paired runs: tests, corrected p values, effect sizes, and two bootstraps.

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


def holm(p: Array) -> Array:
    """Holm's correction of a family of p values."""
    from statsmodels.stats.multitest import multipletests

    return np.asarray(multipletests(p, method="holm")[1], dtype=np.float64) if len(p) else np.asarray(p)


def bootstrap(values: Array, resamples: int, seed: int) -> Interval:
    """Percentile bootstrap of the mean over runs `[R]`."""
    rng = np.random.default_rng(seed)
    means = values[rng.integers(0, len(values), (resamples, len(values)))].mean(axis=1)
    return _percentiles(means)


def crossed_bootstrap(values: Array, resamples: int, seed: int) -> list[Interval]:
    """Percentile bootstrap of the mean over runs and images, both resampled at once (Owen 2007).

    `values` is `[K, R, N]`, K quantities of the same runs and images; all K see the same resamples.
    """
    quantities, runs, images = values.shape
    rng = np.random.default_rng(seed)
    means = np.empty((quantities, resamples))
    for start in range(0, resamples, 500):
        chosen = slice(start, min(start + 500, resamples))
        count = chosen.stop - start
        run_share, image_share = _resample(runs, count, rng), _resample(images, count, rng)
        over_images = values @ image_share.T  # [K, R, count]
        means[:, chosen] = np.einsum("krs,sr->ks", over_images, run_share)
    return [_percentiles(row) for row in means]


def _resample(size: int, count: int, rng: np.random.Generator) -> Array:
    """`count` bootstrap samples of `size` items, as the weight `[count, size]` of each item in each sample."""
    chosen = rng.integers(0, size, (count, size)) + np.arange(count)[:, None] * size
    return np.bincount(chosen.ravel(), minlength=count * size).reshape(count, size) / size


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
