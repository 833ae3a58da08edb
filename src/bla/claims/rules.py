"""The paper's claims, each judged by a rule that was fixed before any number was seen.

Rules: a claim of a *difference* holds if a paired test finds it (p < alpha) in the claimed direction, and
not if in the other; where ranks and means disagree it is inconclusive. A claim of *no difference* holds only if p >= alpha and the 95 % interval of the paired difference
lies within +-delta; it does not hold if p < alpha. Everything else is inconclusive.

Among stand-ins, a claim about cats vs. dogs (A) is tried on datasets of two classes, a claim about dogs or birds (B, C)
on the others.
Only the paper's datasets at the paper's settings (`bla.base.paper`) can get a verdict: stand-ins can neither reproduce nor
refute. Claim 10 counts a constant map, which has no rank correlation, as 0. Claims 5 and 6 are judged for each reading of the "frozen" head that is among the columns.

Claims about other experiments are judged in `bla.claims.further`.

Source: Baumhauer et al. 2021, sections 3 and 4; numbering as in the report.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import binomtest

from bla.base.paper import COLUMNS, DATASETS, PUBLISHED_AS
from bla.inference.paired import (
    Column,
    Interval,
    Measure,
    PairedTest,
    bootstrap,
    bootstrap_spread_ratio,
    brown_forsythe,
    crossed_bootstrap,
    standard_error,
    wilcoxon,
)

DELTA_ACCURACY = 0.005
"""Largest difference in accuracy that counts as none."""
DELTA_LOSS = 0.05
"""Largest difference in loss that counts as none, as a share of BL's mean loss."""
LARGEST_COST = 0.015
"""Largest accuracy BL - BLA that counts as little (claim 2; published: at most 0.0123)."""
VERDICTS = {"yes": "reproduced", "no": "not reproduced", "inconclusive": "inconclusive"}
"""What an answer means on the paper's data at the paper's settings."""
COMPARABLE = 0.15
"""Largest difference between rank correlations with LIME that counts as comparable (claim 10; published: at most 0.14)."""

NOT_RUN = {
    13: ("on ImageNet BLA-T beats BL", "needs ImageNet, which a user must bring"),
    18: ("people prefer BLA-T to CAM", "needs participants"),
    19: ("people prefer BLA-T to L2X-F", "needs participants"),
    20: ("people prefer BLA-T to a random explanation", "needs participants"),
}


@dataclass(frozen=True)
class Dataset:
    """One dataset's columns by key, and what kind of images it has (a key of `bla.base.paper.DATASETS`, or a stand-in).

    `with_lime` holds rank correlations with LIME by method, `[R, M]`. `departures` say in words how its preparation and
    training depart from the paper's settings, `variant_departures` how each column does, `lime_departures` how LIME does.
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
    """The answer of one test: what was found, how, and whether the claim holds here (yes, no, inconclusive)."""

    ours: str
    test: str
    p: float
    holds_here: str


@dataclass(frozen=True)
class Claim:
    """A claim about some columns, and the rule that judges it on one dataset and, where it has one, one measure."""

    number: int
    text: str
    needs: tuple[str, ...]
    judge: "Callable[[Judge, Measure], Finding]"
    measures: tuple[Measure, ...] = ("accuracy",)
    applies: "Callable[[Dataset, Measure], bool]" = lambda dataset, measure: True
    published: bool = True
    optional: bool = False  # no row at all where a column is missing
    lime: bool = False  # about Table 2


class Judge:
    """The rules, applied to one dataset."""

    def __init__(self, dataset: Dataset, alpha: float, resamples: int, seed: int) -> None:
        self.dataset, self.alpha, self.resamples, self.seed = dataset, alpha, resamples, seed

    def difference(self, higher: str, lower: str, measure: Measure) -> Finding:
        """Whether `higher` has the larger values of the measure: the test's ranks say so, and the means agree."""
        x, y = self.dataset.columns[higher], self.dataset.columns[lower]
        test = wilcoxon(x.paired(measure), y.paired(measure))
        mean = float(np.mean(x.measure(measure) - y.measure(measure)))
        unclear = test.p >= self.alpha or mean * test.effect_size <= 0
        holds = "inconclusive" if unclear else "yes" if mean > 0 else "no"
        how = f"Wilcoxon signed-rank, {test.nonzero_pairs} non-zero pairs, rank-biserial {test.effect_size:+.2f}"
        return Finding(self.values(measure, higher, lower), how, test.p, holds)

    def no_difference(self, first: str, second: str, measure: Measure) -> Finding:
        """Whether two columns have the same mean of the measure, within +-delta."""
        x, y = self.dataset.columns[first], self.dataset.columns[second]
        test = wilcoxon(x.paired(measure), y.paired(measure))
        interval = self._interval(x.measure(measure) - y.measure(measure))
        reference = float(self.dataset.columns["bl"].measure("loss").mean())
        delta = DELTA_ACCURACY if measure == "accuracy" else DELTA_LOSS * reference
        within = -delta < interval.low and interval.high < delta
        holds = "no" if test.p < self.alpha else "yes" if within else "inconclusive"
        how = f"Wilcoxon signed-rank, {test.nonzero_pairs} non-zero pairs; {show(interval)} within ±{delta:.4f}"
        return Finding(self.values(measure, first, second), how, test.p, holds)

    def little_cost(self, baseline: str) -> Finding:
        """Claim 2: baseline - BLA is at most LARGEST_COST and below half of baseline - L2X-F, by their intervals."""
        columns = self.dataset.columns
        bl, bla, l2x = (columns[key].measure("accuracy") for key in (baseline, "bla", "l2x_f"))
        cost, half = self._interval(bl - bla), self._interval((bl - bla) - (bl - l2x) / 2)
        yes, no = cost.high <= LARGEST_COST and half.high < 0, cost.low > LARGEST_COST or half.low > 0
        p = wilcoxon(columns[baseline].paired("accuracy"), columns["bla"].paired("accuracy")).p
        how = (
            f"bootstrap: cost {show(cost)} at most {LARGEST_COST}, cost - half of L2X-F's {show(half)} below 0; "
            f"p of cost = 0 by Wilcoxon signed-rank"
        )
        holds = "yes" if yes else "no" if no else "inconclusive"
        return Finding(self.values("accuracy", baseline, "bla", "l2x_f"), how, p, holds)

    def more_spread(self, more: str, less: str, measure: Measure) -> Finding:
        """Whether the runs of column `more` vary more than those of `less`."""
        x, y = self.dataset.columns[more].measure(measure), self.dataset.columns[less].measure(measure)
        p = brown_forsythe(x, y)
        ratio = bootstrap_spread_ratio(x, y, self.resamples, self.seed)
        holds = "inconclusive" if p >= self.alpha else "yes" if x.std() > y.std() else "no"
        ours = f"sd {COLUMNS[more]} {x.std(ddof=1):.5f}, {COLUMNS[less]} {y.std(ddof=1):.5f} (n = {len(x)})"
        return Finding(ours, f"Brown-Forsythe; ratio of standard deviations {show(ratio)}", p, holds)

    def varying_size(self, key: str) -> Finding:
        """Claim 14: within a run the interquartile range over images is above 0 and no size holds 90 % of them.

        Asked of every run by itself, since runs differ too; a binomial test says whether most runs pass.
        """
        size = self.dataset.columns[key].size
        assert size is not None
        quartiles = np.quantile(size, [0.25, 0.75], axis=1)
        commonest = np.array([np.unique(run, return_counts=True)[1].max() / len(run) for run in size])
        passing = int(np.sum((quartiles[1] > quartiles[0]) & (commonest < 0.9)))
        p = float(binomtest(passing, len(size)).pvalue)
        ours = f"{passing} of {len(size)} runs vary (n = {size.shape[1]} images each)"
        holds = "inconclusive" if p >= self.alpha else "yes" if passing > len(size) / 2 else "no"
        return Finding(ours, "runs with interquartile range > 0 and no size at 90 %, binomial test", p, holds)

    def comparable_with_lime(self) -> Finding:
        """Claim 10 on A and B: the 95 % interval of BLA-T - CAM lies within +-COMPARABLE."""
        ours, difference, test = self._against_cam()
        interval = crossed_bootstrap(difference[None], self.resamples, self.seed)[0]
        yes = interval.low > -COMPARABLE and interval.high < COMPARABLE
        no = interval.low > COMPARABLE or interval.high < -COMPARABLE
        how = f"crossed bootstrap over runs and images: {show(interval)} within ±{COMPARABLE}; p of no difference by Wilcoxon signed-rank over images"
        return Finding(ours, how, test.p, "yes" if yes else "no" if no else "inconclusive")

    def better_once(self, better: str, worse: str) -> Finding:
        """Claim 13: McNemar's exact test on the predictions of run 0, since the paper has one run."""
        x, y = (self.dataset.columns[key].correct[0] for key in (better, worse))
        more, fewer = int((x & ~y).sum()), int((y & ~x).sum())
        p = float(binomtest(more, more + fewer).pvalue) if more + fewer else 1.0
        holds = "inconclusive" if p >= self.alpha else "yes" if more > fewer else "no"
        told = [f"{COLUMNS[key]} {v.mean():.4f}" for key, v in ((worse, y), (better, x))]
        ours = f"{', '.join(told)} (run 0, n = {len(x)} images)"
        return Finding(
            ours,
            f"McNemar, exact: {more} images right with {COLUMNS[better]} alone, {fewer} with {COLUMNS[worse]} alone",
            p,
            holds,
        )

    def closer_to_lime(self) -> Finding:
        """Claim 10 on C: BLA-T correlates more than CAM, image by image, by ranks and mean."""
        ours, difference, test = self._against_cam()
        effect = test.effect_size
        unclear = test.p >= self.alpha or difference.mean() * effect <= 0
        holds = "inconclusive" if unclear else "yes" if difference.mean() > 0 else "no"
        return Finding(ours, f"Wilcoxon signed-rank over images, rank-biserial {effect:+.2f}", test.p, holds)

    def _against_cam(self) -> tuple[str, NDArray[np.float64], PairedTest]:
        """What was found, BLA-T - CAM by run and image, and the test of no difference over images."""
        bla_t, cam = (np.nan_to_num(self.dataset.with_lime[key]) for key in ("bla_t", "cam"))
        means = {"CAM": cam.mean(axis=0), "BLA-T": bla_t.mean(axis=0)}
        told = ", ".join(f"{name} {v.mean():.3f} ± {float(standard_error(v)):.3f}" for name, v in means.items())
        test = wilcoxon(means["BLA-T"], means["CAM"])
        return f"{told} (n = {cam.shape[1]} images, {len(cam)} runs)", bla_t - cam, test

    def values(self, measure: Measure, *keys: str) -> str:
        """The columns' means with standard errors."""
        parts = []
        for key in keys:
            runs = self.dataset.columns[key].measure(measure)
            parts.append(f"{COLUMNS[key]} {runs.mean():.4f} ± {float(standard_error(runs)):.4f}")
        return f"{', '.join(parts)} (n = {len(runs)})"

    def _interval(self, differences: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> Interval:
        return bootstrap(differences, self.resamples, self.seed)


def show(interval: Interval) -> str:
    """An interval as the answers print it."""
    return f"[{interval.low:.4f}, {interval.high:.4f}]"


def _like_a(dataset: Dataset, measure: Measure) -> bool:
    return dataset.classes == 2


def _like_b_or_c(dataset: Dataset, measure: Measure) -> bool:
    return dataset.classes > 2


def _better(judge: Judge, better: str, worse: str, measure: Measure) -> Finding:
    return judge.difference(*((better, worse) if measure == "accuracy" else (worse, better)), measure)


def _like_a_or_b(dataset: Dataset, measure: Measure) -> bool:
    return dataset.kind != "caltech_birds"


def _like_c(dataset: Dataset, measure: Measure) -> bool:
    return dataset.kind == "caltech_birds" or (dataset.kind not in DATASETS and dataset.classes > 2)


BOTH: tuple[Measure, Measure] = ("accuracy", "loss")
CLAIMS = (
    Claim(1, "BLA beats L2X-F", ("bla", "l2x_f"), lambda j, m: _better(j, "bla", "l2x_f", m), BOTH),
    Claim(2, "BLA costs little against BL", ("bla", "l2x_f"), lambda j, m: j.little_cost("bl")),
    Claim(2, "BLA costs little against BL+", ("bla", "l2x_f"), lambda j, m: j.little_cost("bl_plus")),
    Claim(
        3, "thresholding leaves the accuracy on A", ("bla", "bla_t"),
        lambda j, m: j.no_difference("bla_t", "bla", m), applies=_like_a,
    ),
    Claim(
        3, "thresholding raises the accuracy on B and C", ("bla", "bla_t"),
        lambda j, m: j.difference("bla_t", "bla", m), applies=_like_b_or_c,
    ),
    Claim(4, "thresholding raises the loss", ("bla", "bla_t"), lambda j, m: j.difference("bla_t", "bla", m), ("loss",)),
    *(
        Claim(
            5, f"freezing the head does not change the mean, except the loss on A ({COLUMNS[key]})", ("bla_t", key),
            lambda j, m, key=key: j.no_difference(key, "bla_t", m), BOTH,  # type: ignore[misc]
            lambda dataset, measure: measure == "accuracy" or _like_b_or_c(dataset, measure), optional=key != "bla_ph",
        )
        for key in ("bla_ph", "bla_ph_released", "bla_ph_reloaded")
    ),
    *(
        Claim(
            6, f"freezing the head raises the variance over runs ({COLUMNS[key]})", ("bla_t", key),
            lambda j, m, key=key: j.more_spread(key, "bla_t", m), BOTH,  # type: ignore[misc]
            optional=key != "bla_ph",
        )
        for key in ("bla_ph", "bla_ph_released", "bla_ph_reloaded")
    ),
    Claim(
        7, "on birds BLA-T does not differ from BL", ("bla_t",),
        lambda j, m: j.no_difference("bla_t", "bl", m), applies=_like_c,
    ),
    Claim(
        7, "on birds BLA-T does not differ from BL+", ("bla_t",),
        lambda j, m: j.no_difference("bla_t", "bl_plus", m), applies=_like_c,
    ),
    Claim(
        10, "BLA-T's correlation with LIME is comparable to CAM's on A and B", ("bla_t",),
        lambda j, m: j.comparable_with_lime(), applies=_like_a_or_b, lime=True,
    ),
    Claim(
        10, "BLA-T's correlation with LIME is larger than CAM's on C", ("bla_t",),
        lambda j, m: j.closer_to_lime(), applies=_like_c, lime=True,
    ),
    *(
        Claim(
            13, f"on ImageNet BLA-T beats {COLUMNS[key]}", ("bla_t",),
            lambda j, m, key=key: j.better_once("bla_t", key),  # type: ignore[misc]
            applies=lambda dataset, measure: dataset.kind == "imagenet", published=False,
        )
        for key in ("bl", "bl_plus")
    ),
    Claim(14, "explanation size varies from image to image", ("bla",), lambda j, m: j.varying_size("bla"), published=False),
    Claim(
        16, "BLA-T's loss stays below L2X-F's", ("bla_t", "l2x_f"),
        lambda j, m: j.difference("l2x_f", "bla_t", m), ("loss",),
    ),
    Claim(17, "L2X-F is worse than BL", ("l2x_f",), lambda j, m: _better(j, "bl", "l2x_f", m), BOTH),
)  # fmt: skip
"""The claims that Tables 1 and 2 can judge, in the paper's order."""


def judge_claims(
    datasets: list[Dataset],
    published: pd.DataFrame,
    alpha: float,
    resamples: int,
    seed: int,
    others: Sequence[dict[str, object]] = (),
) -> pd.DataFrame:
    """Every claim of the paper, judged on every dataset it can be tried on: one row a claim, dataset and measure.

    `others` are rows that were judged elsewhere (`bla.claims.further`).

    Columns: claim, text, dataset, paper (the published values), ours, test, p (raw), holds_here (yes, no, inconclusive; empty if not run), verdict (reproduced, not reproduced, inconclusive, not run)
    and reason.
    """
    rows = []
    for claim in CLAIMS:
        for dataset in datasets:
            judge = Judge(dataset, alpha, resamples, seed)
            for measure in claim.measures:
                if claim.optional and not set(claim.needs) <= dataset.columns.keys():
                    continue
                if claim.applies(dataset, measure):
                    rows.append(_row(claim, dataset, measure, judge, published))
    rows += others
    judged = {row["claim"] for row in rows}
    rows += [
        {"claim": number, "text": text, "verdict": "not run", "reason": reason}
        for number, (text, reason) in NOT_RUN.items()
        if number not in judged
    ]
    table = pd.DataFrame(rows).sort_values("claim", kind="stable", ignore_index=True)
    for column in ("dataset", "paper", "ours", "test", "holds_here"):
        table[column] = table[column].fillna("")
    order = ["claim", "text", "dataset", "paper", "ours", "test", "p", "holds_here", "verdict", "reason"]
    return table[order]


def _row(claim: Claim, dataset: Dataset, measure: Measure, judge: Judge, published: pd.DataFrame) -> dict[str, object]:
    text = f"{claim.text}: {measure}" if len(claim.measures) > 1 else claim.text
    row: dict[str, object] = {"claim": claim.number, "text": text, "dataset": dataset.name}
    kinds = [dataset.kind] if dataset.kind in DATASETS else list(DATASETS)
    if claim.published:
        row["paper"] = (
            _published_two(published, kinds) if claim.lime else _published(published, claim.needs, measure, kinds)
        )
    absent = [COLUMNS[key] for key in claim.needs if key not in dataset.columns]
    if absent:
        return row | {"verdict": "not run", "reason": f"{' and '.join(absent)} not among the variants"}
    if claim.lime and not dataset.with_lime:
        return row | {"verdict": "not run", "reason": "no rank correlations with LIME"}
    finding = claim.judge(judge, measure)
    row |= {"ours": finding.ours, "test": finding.test, "p": finding.p, "holds_here": finding.holds_here}
    if dataset.kind not in DATASETS:
        reason = (
            "ImageNet 2012; the paper's is 2010" if dataset.kind == "imagenet" else "not one of the paper's datasets"
        )
        return row | {"verdict": "not run", "reason": reason}
    used = dict.fromkeys(("bl", "bl_plus", *claim.needs))
    odd = [
        *dataset.departures,
        *(dataset.lime_departures if claim.lime else ()),
        *(told for key in used for told in dataset.variant_departures.get(key, [])),
    ]
    if odd:
        return row | {"verdict": "not run", "reason": f"not the paper's settings: {', '.join(odd)}"}
    released = "the head trains, as BLA-T's does: only their random numbers differ" if "bla_ph_released" in used else ""
    return row | {"verdict": VERDICTS[finding.holds_here], "reason": released}


def _published(published: pd.DataFrame, keys: tuple[str, ...], measure: Measure, kinds: Iterable[str]) -> str:
    """The paper's values of the columns ± standard errors, BL's in front: `A: BL 0.9912 ± 0.0001, ...; B: ...`."""
    table = published[(published["where"] == "Table 1") & (published["quantity"] == measure)]
    rows = {(row.dataset, row.method): f"{row.value:.4f} ± {row.spread:.4f}" for row in table.itertuples()}
    names = [PUBLISHED_AS[key] for key in ("bl", *keys)]
    return "; ".join(f"{DATASETS[kind]}: {', '.join(f'{name} {rows[kind, name]}' for name in names)}" for kind in kinds)


def _published_two(published: pd.DataFrame, kinds: Iterable[str]) -> str:
    """The paper's rank correlations with LIME: `A: CAM 0.47, BLA-T 0.37; ...`."""
    table = published[published["where"] == "Table 2"]
    rows = {(row.dataset, row.method): f"{row.value:.2f}" for row in table.itertuples()}
    return "; ".join(f"{DATASETS[kind]}: CAM {rows[kind, 'CAM']}, BLA-T {rows[kind, 'BLA-T']}" for kind in kinds)
