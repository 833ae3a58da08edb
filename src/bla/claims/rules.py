"""The rules that judge claims.

Each was fixed before its results were seen, except seven that were changed after results on embedded data had been seen:
claim 14; the clause on disagreeing ranks and means; claim 6 (Pitman-Morgan, and the clauses on the interval, on
median absolute deviations and on few runs); claim 12's clause on empty explanations; the intervals of claims 2, 3, 5,
7, 8, 9 and 10 (Student's t instead of a bootstrap, which is too narrow for few runs); the interval of claim 22 (a
jackknife over runs, since each pair of runs counted for both as if they were independent); the clause on samples that
are too small, which claims 2, 9, 10 (on A and B) and 21 had only later: a few runs with equal values have an interval
of no width. No rule was changed after results on the paper's datasets had been seen.

A claim of a *difference* holds if a paired test is significant (p < alpha) in the claimed direction, and does not hold
if it is significant in the opposite direction; if ranks and means disagree it is inconclusive. A claim of *no
difference* holds only if p >= alpha and the 95 % interval of the paired difference lies within +-delta; it does not
hold if p < alpha. Everything else is inconclusive, and so is a claim, also one judged by intervals, if its number of
runs (in claims 10, 13 and 22, of images; in 18 to 20, of persons) allows no p below alpha.

Claim 21 is ours: the paper says only that BLA can approximate subset selection in general (abstract, section 3.2).

Source: Baumhauer et al. 2021, sections 3 and 4.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import binomtest

from bla.base.paper import COLUMNS
from bla.experiments.runs import Column, Measure
from bla.inference.clustered import FEWEST
from bla.inference.paired import (
    Interval,
    PairedTest,
    absolute_deviation,
    bootstrap_spread_ratio,
    crossed,
    mcnemar,
    pitman_morgan,
    smallest_p,
    standard_error,
    student,
    wilcoxon,
)
from bla.inference.unpaired import mann_whitney, smallest_mann_whitney_p

DELTA_ACCURACY = 0.005
"""Largest difference in accuracy that counts as no difference."""
DELTA_LOSS = 0.05
"""Largest difference in loss that counts as no difference, as a share of BL's mean loss."""
LARGEST_COST = 0.015
"""Largest drop in accuracy, BL - BLA, that counts as little (claim 2; published: at most 0.0123)."""
COMPARABLE = 0.15
"""Largest difference of rank correlations with LIME that counts as comparable (claim 10; published: at most 0.14)."""
NEAR_CHANCE = 0.05
"""Largest distance from chance at which an accuracy counts as chance (claim 9; published: 0)."""
WORKING = 0.9
"""Accuracy above which soft explanations work (claim 9; published: 0.96)."""
ONE_CELL = 0.95
"""A run has collapsed if at least this share of its images keep a single cell (claim 11)."""
MOSTLY_EMPTY = 0.5
"""If a larger share of explanations is empty, the others say nothing about size (claim 12)."""
FAR_BELOW = -100
"""A run has left the bound if its median largest logit is below this (claim 11; the paper's are around -1000)."""
AS_WELL_RANK = 0.25
"""Largest difference of median ranks that counts as "at least as well" (claim 21; random features are 2.5 to 4 ranks from the ideal)."""
RANDOM_RANK = 5.5
"""Mean median rank of relevant features among 10 if the selection is random (claim 21)."""


@dataclass(frozen=True)
class Dataset:
    """One dataset's columns by key, and its `kind` of images, which the paper used if in `bla.base.paper.DATASETS`.

    `with_lime`: rank correlations with LIME by method, `[R, M]`. `departures`: in words, how preparation and training
    differ from the paper's settings; `variant_departures` and `lime_departures`: the same for each column and for LIME.
    """

    name: str
    kind: str
    classes: int
    columns: Mapping[str, Column]
    departures: Sequence[str] = ()
    variant_departures: Mapping[str, Sequence[str]] = field(default_factory=dict)
    with_lime: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    lime_departures: Sequence[str] = ()


@dataclass(frozen=True)
class Finding:
    """The result of one test: our values, the test, p, and whether the claim holds here (yes, no, inconclusive)."""

    ours: str
    test: str
    p: float
    holds_here: str


def judged_by_p(ours: str, test: str, p: float, holds_here: str, smallest: float, alpha: float) -> Finding:
    """The finding of a test whose smallest possible p is `smallest`: inconclusive if that is not below alpha."""
    if smallest < alpha:
        return Finding(ours, test, p, holds_here)
    return Finding(ours, f"{test}; cannot answer: the sample allows no p below {smallest:.2g}", p, "inconclusive")


class Judge:
    """The rules, applied to one dataset.

    BL may have one run, that of a classifier of one's own: the paired tests are then tests of one sample against it.
    """

    def __init__(self, dataset: Dataset, alpha: float, resamples: int, seed: int) -> None:
        self.dataset, self.alpha, self.resamples, self.seed = dataset, alpha, resamples, seed

    def difference(self, higher: str, lower: str, measure: Measure) -> Finding:
        """Whether `higher` has larger values of the measure than `lower`, by the test's ranks and by the means."""
        x, y = self.dataset.columns[higher], self.dataset.columns[lower]
        test = wilcoxon(x.paired(measure), y.paired(measure))
        mean = float(np.mean(x.measure(measure) - y.measure(measure)))
        unclear = test.p >= self.alpha or mean * test.effect_size <= 0
        holds = "inconclusive" if unclear else "yes" if mean > 0 else "no"
        how = f"Wilcoxon signed-rank, {test.nonzero_pairs} non-zero pairs, rank-biserial {test.effect_size:+.2f}"
        smallest = smallest_p(max(len(x.correct), len(y.correct)))
        return judged_by_p(self.values(measure, higher, lower), how, test.p, holds, smallest, self.alpha)

    def no_difference(self, first: str, second: str, measure: Measure) -> Finding:
        """Whether two columns have the same mean of the measure, within +-delta."""
        x, y = self.dataset.columns[first], self.dataset.columns[second]
        test = wilcoxon(x.paired(measure), y.paired(measure))
        interval = student(x.measure(measure) - y.measure(measure))
        reference = float(self.dataset.columns["bl"].measure("loss").mean())
        delta = DELTA_ACCURACY if measure == "accuracy" else DELTA_LOSS * reference
        within = -delta < interval.low and interval.high < delta
        holds = "no" if test.p < self.alpha else "yes" if within else "inconclusive"
        how = f"Wilcoxon signed-rank, {test.nonzero_pairs} non-zero pairs; {show(interval)} within ±{delta:.4f}"
        smallest = smallest_p(len(x.correct))
        return judged_by_p(self.values(measure, first, second), how, test.p, holds, smallest, self.alpha)

    def little_cost(self, baseline: str) -> Finding:
        """Claim 2: by its interval, baseline - BLA is at most LARGEST_COST and less than half of baseline - L2X-F."""
        columns = self.dataset.columns
        bl, bla, l2x = (columns[key].measure("accuracy") for key in (baseline, "bla", "l2x_f"))
        cost, half = student(bl - bla), student((bl - bla) - (bl - l2x) / 2)
        yes, no = cost.high <= LARGEST_COST and half.high < 0, cost.low > LARGEST_COST or half.low > 0
        p = wilcoxon(columns[baseline].paired("accuracy"), columns["bla"].paired("accuracy")).p
        how = (
            f"Student's t: cost {show(cost)} at most {LARGEST_COST}, cost - half of L2X-F's {show(half)} below 0; "
            f"p of cost = 0 by Wilcoxon signed-rank"
        )
        holds = "yes" if yes else "no" if no else "inconclusive"
        smallest = smallest_p(len(columns["bla"].correct))
        return judged_by_p(self.values("accuracy", baseline, "bla", "l2x_f"), how, p, holds, smallest, self.alpha)

    def more_spread(self, more: str, less: str, measure: Measure) -> Finding:
        """Claim 6: whether the runs of column `more` vary more than those of `less`, by the Pitman-Morgan test.

        Runs are paired. The claim is inconclusive if the bootstrap interval of the ratio of standard deviations
        includes 1, if standard deviations and median absolute deviations disagree, for example because of one run, or
        if there are fewer than `FEWEST` runs: their interval would be too narrow.
        """
        x, y = self.dataset.columns[more].measure(measure), self.dataset.columns[less].measure(measure)
        test, ratio = pitman_morgan(x, y), bootstrap_spread_ratio(x, y, self.resamples, self.seed)
        robust = absolute_deviation(x) - absolute_deviation(y)
        clear = ratio.low > 1 or ratio.high < 1  # not without an interval
        unclear = test.p >= self.alpha or test.correlation * robust <= 0 or not clear
        holds = "inconclusive" if unclear else "yes" if test.correlation > 0 else "no"
        ours = f"sd {COLUMNS[more]} {x.std(ddof=1):.5f}, {COLUMNS[less]} {y.std(ddof=1):.5f} (n = {len(x)})"
        how = f"Pitman-Morgan, r = {test.correlation:+.2f}; ratio of standard deviations "
        if len(x) < FEWEST:
            return Finding(ours, f"{how}without an interval, which takes {FEWEST} runs", test.p, "inconclusive")
        return Finding(ours, f"{how}{show(ratio)}", test.p, holds)

    def varying_size(self, key: str) -> Finding:
        """Claim 14: a run passes if its interquartile range over images is above 0 and no size has 90 % of the images.

        Each run is judged by itself, since runs differ too; a binomial test decides whether most runs pass.
        """
        size = self.dataset.columns[key].size
        assert size is not None
        quartiles = np.quantile(size, [0.25, 0.75], axis=1)
        commonest = np.array([np.unique(run, return_counts=True)[1].max() / len(run) for run in size])
        passing = int(np.sum((quartiles[1] > quartiles[0]) & (commonest < 0.9)))
        p = float(binomtest(passing, len(size)).pvalue)
        ours = f"{passing} of {len(size)} runs vary (n = {size.shape[1]} images each)"
        holds = "inconclusive" if p >= self.alpha else "yes" if passing > len(size) / 2 else "no"
        how = "runs with interquartile range > 0 and no size at 90 %, binomial test"
        return judged_by_p(ours, how, p, holds, smallest_p(len(size)), self.alpha)

    def comparable_with_lime(self) -> Finding:
        """Claim 10 on A and B: the 95 % interval of BLA-T - CAM lies within +-COMPARABLE."""
        ours, difference, test = self._against_cam()
        interval = crossed(difference[None])[0]
        yes = interval.low > -COMPARABLE and interval.high < COMPARABLE
        no = interval.low > COMPARABLE or interval.high < -COMPARABLE
        how = f"Student's t over runs and images: {show(interval)} within ±{COMPARABLE}; p of no difference by Wilcoxon signed-rank over images"
        holds = "yes" if yes else "no" if no else "inconclusive"
        return judged_by_p(ours, how, test.p, holds, smallest_p(difference.shape[1]), self.alpha)

    def better_once(self, better: str, worse: str) -> Finding:
        """Claim 13: McNemar's exact test on the predictions of run 0, since the paper has one run."""
        x, y = (self.dataset.columns[key].correct[0] for key in (better, worse))
        more, fewer, p = int((x & ~y).sum()), int((y & ~x).sum()), mcnemar(x, y).p
        holds = "inconclusive" if p >= self.alpha else "yes" if more > fewer else "no"
        accuracies = [f"{COLUMNS[key]} {v.mean():.4f}" for key, v in ((worse, y), (better, x))]
        ours = f"{', '.join(accuracies)} (run 0, n = {len(x)} images)"
        how = f"McNemar, exact: {more} images right with {COLUMNS[better]} alone, {fewer} with {COLUMNS[worse]} alone"
        return judged_by_p(ours, how, p, holds, smallest_p(len(x)), self.alpha)

    def closer_to_lime(self) -> Finding:
        """Claim 10 on C: BLA-T correlates more with LIME than CAM does, by the test's ranks and by the mean."""
        ours, difference, test = self._against_cam()
        effect = test.effect_size
        unclear = test.p >= self.alpha or difference.mean() * effect <= 0
        holds = "inconclusive" if unclear else "yes" if difference.mean() > 0 else "no"
        how = f"Wilcoxon signed-rank over images, rank-biserial {effect:+.2f}"
        return judged_by_p(ours, how, test.p, holds, smallest_p(difference.shape[1]), self.alpha)

    def _against_cam(self) -> tuple[str, NDArray[np.float64], PairedTest]:
        """Our values as text, BLA-T - CAM of each run and image, and the paired test over images."""
        bla_t, cam = (np.nan_to_num(self.dataset.with_lime[key]) for key in ("bla_t", "cam"))
        means = {"CAM": cam.mean(axis=0), "BLA-T": bla_t.mean(axis=0)}
        text = ", ".join(f"{name} {v.mean():.3f} ± {float(standard_error(v)):.3f}" for name, v in means.items())
        test = wilcoxon(means["BLA-T"].round(9), means["CAM"].round(9))  # so that equal means are no difference
        return f"{text} (n = {cam.shape[1]} images, {len(cam)} runs)", bla_t - cam, test

    def values(self, measure: Measure, *keys: str) -> str:
        """The columns' means with standard errors; the one value of an own classifier has none."""
        parts, most = [], max(len(self.dataset.columns[key].correct) for key in keys)
        for key in keys:
            runs = self.dataset.columns[key].measure(measure)
            spread = f" ± {float(standard_error(runs)):.4f}" if len(runs) > 1 else " (one value)"
            parts.append(f"{COLUMNS[key]} {runs.mean():.4f}{spread}")
        return f"{', '.join(parts)} (n = {most})"


def show(interval: Interval) -> str:
    """An interval as text."""
    return f"[{interval.low:.4f}, {interval.high:.4f}]"


def collapsed(runs: pd.DataFrame, alpha: float) -> Finding:
    """Claim 11: whether in most runs nearly all images keep a single cell, with logits far below the bound."""
    one, logit = runs["share_one_cell"].to_numpy(float), runs["median_largest_logit"]
    passing = int(((one >= ONE_CELL) & (logit < FAR_BELOW)).sum())
    p = float(binomtest(passing, len(runs)).pvalue)
    holds = "inconclusive" if p >= alpha else "yes" if passing > len(runs) / 2 else "no"
    ours = (
        f"one cell in {one.mean():.3f} ± {float(standard_error(one)):.3f} of images, largest logits by run from "
        f"{logit.min():.4g} to {logit.max():.4g} ({_count(runs)})"
    )
    how = f"{passing} of {len(runs)} runs with one cell in {ONE_CELL:.0%} of images and a median largest logit below {FAR_BELOW}, binomial test"  # fmt: skip
    return judged_by_p(ours, how, p, holds, smallest_p(len(runs)), alpha)


def larger_than_bla(runs: pd.DataFrame, bla: pd.DataFrame, alpha: float) -> Finding:
    """Claim 12: whether pointwise attention keeps more cells than BLA, without counting empty explanations.

    An empty explanation is not a focused one, so the claim is inconclusive if the share of empty explanations of a run
    is above `MOSTLY_EMPTY`.
    """
    empty, bla_size = runs["share_empty"].to_numpy(float), bla["explanation_size"].to_numpy(float)
    ours = (
        f"pointwise keeps no cell in {empty.mean():.3f} ± {float(standard_error(empty)):.3f} of images ({_count(runs)})"
    )
    if (empty > MOSTLY_EMPTY).any():
        return Finding(ours, "no test: an empty explanation is not a focused one", np.nan, "inconclusive")
    x, y = runs["explanation_size"].to_numpy(float) / (1 - empty), bla_size
    test, mean = wilcoxon(x, y), float((x - y).mean())
    unclear = test.p >= alpha or mean * test.effect_size <= 0
    holds = "inconclusive" if unclear else "yes" if mean > 0 else "no"
    means = [f"{name} {v.mean():.2f} ± {float(standard_error(v)):.2f}" for name, v in (("pointwise", x), ("BLA", y))]
    ours = f"{', '.join(means)} cells where there are any; {ours}"
    how = f"Wilcoxon signed-rank, {test.nonzero_pairs} non-zero pairs, rank-biserial {test.effect_size:+.2f}"
    return judged_by_p(ours, how, test.p, holds, smallest_p(len(x)), alpha)


def _count(runs: pd.DataFrame) -> str:
    return f"n = {len(runs)} runs, {runs['n_images'].iloc[0]} images"


def chance_when_hard(runs: pd.DataFrame, alpha: float) -> Finding:
    """Claim 9: the interval of the hard accuracy is within NEAR_CHANCE of chance, that of the soft one above WORKING.

    The claim does not hold if one of the intervals is completely outside. `runs` are those of one reading of the paper.
    """
    x, y = (runs[f"{how}_accuracy"].to_numpy(float) for how in ("soft", "hard"))
    chance = 1 / int(runs["n_classes"].iloc[0])
    by_soft, by_hard = student(x), student(y)
    low, high = chance - NEAR_CHANCE, chance + NEAR_CHANCE
    yes = low <= by_hard.low and by_hard.high <= high and by_soft.low > WORKING
    no = by_hard.low > high or by_hard.high < low or by_soft.high < WORKING
    means = [f"{how} {v.mean():.4f} ± {float(standard_error(v)):.4f}" for how, v in (("soft", x), ("hard", y))]
    how = (
        f"Student's t: hard {show(by_hard)} within {chance:.2f} ± {NEAR_CHANCE}, soft {show(by_soft)} above {WORKING}; "
        f"p of hard = {chance:.2f} by Wilcoxon signed-rank"
    )
    p = wilcoxon(y, np.full(len(y), chance)).p
    holds = "yes" if yes else "no" if no else "inconclusive"
    return judged_by_p(f"{', '.join(means)} ({_count(runs)})", how, p, holds, smallest_p(len(y)), alpha)


def small_cnn_alike(runs: pd.DataFrame, alpha: float) -> Finding:
    """Claim 8: the small CNN's BLA-T and BL do not differ, by an unpaired test and the interval of the difference."""
    x, y = (runs.loc[runs["column"] == column, "accuracy"].to_numpy(float) for column in ("bla_t", "bl"))
    test = mann_whitney(x, y)
    within = test.interval.low > -DELTA_ACCURACY and test.interval.high < DELTA_ACCURACY
    how = f"Mann-Whitney's U; 95 % interval of the difference {show(test.interval)} within ±{DELTA_ACCURACY}"
    holds = "no" if test.p < alpha else "yes" if within else "inconclusive"
    ours = ", ".join(f"{name} {v.mean():.4f} ± {float(standard_error(v)):.4f}" for name, v in (("BL", y), ("BLA-T", x)))
    smallest = smallest_mann_whitney_p(len(x), len(y))
    return judged_by_p(f"{ours} ({_small_count(runs, x)})", how, test.p, holds, smallest, alpha)


def small_cnn_beats(runs: pd.DataFrame, l2x: float, alpha: float) -> Finding:
    """Claim 15: the small CNN's BLA-T is more accurate than L2X with its published accuracy `l2x`."""
    x = runs.loc[runs["column"] == "bla_t", "accuracy"].to_numpy(float)
    above = wilcoxon(x, np.full(len(x), l2x))
    agree = (x.mean() - l2x) * above.effect_size > 0
    holds = "inconclusive" if above.p >= alpha or not agree else "yes" if x.mean() > l2x else "no"
    ours = f"BLA-T {x.mean():.4f} ± {float(standard_error(x)):.4f} ({_small_count(runs, x)})"
    how = f"Wilcoxon signed-rank of the runs against {l2x:.3f}"
    return judged_by_p(ours, how, above.p, holds, smallest_p(len(x)), alpha)


def _small_count(runs: pd.DataFrame, values: NDArray[np.float64]) -> str:
    return f"n = {len(values)} runs, {runs['n_images'].iloc[0]} images"


def finds_as_well(runs: pd.DataFrame, alpha: float) -> Finding:
    """Claim 21, ours: BLA-T finds the relevant features of a synthetic set at least as well as L2X, by median rank.

    It holds if the 95 % interval of BLA-T - L2X, paired by run, is below AS_WELL_RANK and BLA-T's own interval is below
    RANDOM_RANK; it does not hold if one of the intervals is completely above. A lower rank is better. `runs` are those
    of one set: `method` (bla_t or l2x), `run`, and `median_rank`, the mean over test samples of the median rank of the
    relevant features in the hard explanation, with ties in random order (Chen et al. 2018's measure).
    """
    by_run = runs.pivot(index="run", columns="method", values="median_rank")
    bla_t, l2x = (by_run[name].to_numpy(float) for name in ("bla_t", "l2x"))
    difference, rank = student(bla_t - l2x), student(bla_t)
    yes, no = difference.high < AS_WELL_RANK and rank.high < RANDOM_RANK, difference.low > AS_WELL_RANK or rank.low > RANDOM_RANK  # fmt: skip
    means = [f"{name} {v.mean():.3f} ± {float(standard_error(v)):.3f}" for name, v in (("BLA-T", bla_t), ("L2X", l2x))]
    how = (
        f"Student's t: BLA-T - L2X {show(difference)} below {AS_WELL_RANK}, BLA-T {show(rank)} below {RANDOM_RANK}; "
        f"p of no difference by Wilcoxon signed-rank"
    )
    ours = f"{', '.join(means)} (n = {len(by_run)} runs, {runs['n_samples'].iloc[0]} samples)"
    holds = "yes" if yes else "no" if no else "inconclusive"
    p = wilcoxon((bla_t - l2x).round(9), np.zeros(len(bla_t))).p
    return judged_by_p(ours, how, p, holds, smallest_p(len(bla_t)), alpha)


def preferred(row: "pd.Series[float]", alpha: float) -> Finding:
    """Claims 18 to 20: people prefer BLA-T's explanation to another one.

    `row` is one of user_study_tests.csv. It holds if the mean difference of shares is positive, Wilcoxon's p over persons
    is below alpha, and the interval over persons excludes 0; it does not hold with a negative difference. It is
    inconclusive if ranks and mean disagree, for example because a few persons prefer one explanation strongly.
    """
    p, holds = float(row["p"]), _direction(row, "low", "high", alpha)
    ours = (
        f"share for BLA-T - share for {row['title']} {row['difference']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}] "
        f"(n = {row['n_persons']:.0f} persons, {row['n_answers']:.0f} answers)"
    )
    test = f"Wilcoxon signed-rank over persons, rank-biserial {row['rank_biserial']:+.2f}; 95 % cluster bootstrap over persons"
    return judged_by_p(ours, test, p, holds, smallest_p(int(row["n_persons"])), alpha)


def agrees_over_runs(row: "pd.Series[float]", alpha: float) -> Finding:
    """Claim 22, ours: two runs agree more on an image than one run on two images of the same predicted class.

    `row` is one of agreement.csv. It holds if the mean difference of the overlaps is positive, Wilcoxon's p over images
    is below alpha, and the interval over runs and images excludes 0; it does not hold with a negative difference, and is
    inconclusive if ranks and mean disagree. Two runs are one pair, which gives no interval, so that there is no answer.
    """
    low, high, p = row["difference_low"], row["difference_high"], float(row["p"])
    holds = _direction(row, "difference_low", "difference_high", alpha)
    within = f" [{low:+.3f}, {high:+.3f}]" if np.isfinite(low) else ", no interval from one pair of runs"
    ours = (
        f"overlap of two runs on an image {row['same']:.3f}, of one run on two images {row['other_image']:.3f}, difference "
        f"{row['difference']:+.3f}{within} (n = {row['n_runs']:.0f} runs, {row['n_images_compared']:.0f} images)"
    )
    test = "Wilcoxon signed-rank over images, two-sided; 95 % interval over runs and images"
    return judged_by_p(ours, test, p, holds, float(row["p_smallest"]), alpha)


def _direction(row: "pd.Series[float]", low: str, high: str, alpha: float) -> str:
    """Whether a mean `difference` is positive, by Wilcoxon's p, the interval in the columns `low` and `high`, and the ranks."""
    agree = row["difference"] * row["rank_biserial"] > 0
    clear = row["p"] < alpha and (row[low] > 0 or row[high] < 0)
    return "inconclusive" if not clear or not agree else "yes" if row["difference"] > 0 else "no"
