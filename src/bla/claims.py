"""The paper's claims, each judged by a rule that was fixed before any number was seen.

Rules: a claim of a *difference* holds if a paired test finds it (p < alpha) in the claimed direction, and
not if in the other; where ranks and means disagree it is inconclusive. A claim of *no difference* holds only if p >= alpha and the 95 % interval of the paired difference
lies within +-delta; it does not hold if p < alpha. Everything else is inconclusive.

Among stand-ins, a claim about cats vs. dogs (A) is tried on datasets of two classes, a claim about dogs or birds (B, C)
on the others.
Claim 9 is judged for each reading of L2X's temperature: it holds if the 95 % interval of the hard accuracy over runs lies within
+-0.05 of chance and that of the soft accuracy above 0.9, and not if one of them lies wholly outside.
Only the paper's datasets at the paper's settings (`bla.paper`) can get a verdict: stand-ins can neither reproduce nor
refute. Claim 10 counts a constant map, which has no rank correlation, as 0. Claims 5 and 6 are judged for each reading of the "frozen" head that is among the columns.

Source: Baumhauer et al. 2021, sections 3 and 4; numbering as in the report.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import binomtest

from bla.paper import COLUMNS, DATASETS, PUBLISHED_AS
from bla.statistics import (
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
from bla.unpaired import mann_whitney

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
    11: ("with a concept vector the explanation collapses to one cell", "the concept vector is not implemented yet"),
    12: ("pointwise attention is unfocused", "pointwise attention is not implemented yet"),
    13: ("on ImageNet BLA-T beats BL", "needs ImageNet, which a user must bring"),
    18: ("people prefer BLA-T to CAM", "needs participants"),
    19: ("people prefer BLA-T to L2X-F", "needs participants"),
    20: ("people prefer BLA-T to a random explanation", "needs participants"),
}

SMALL_CNN = {
    8: "on MNIST BLA-T does not differ from BL",
    15: "BLA-T beats pixel-level L2X on MNIST",
}
"""The claims about the small CNN of section 4.1, for `judge_small_cnn`."""
L2X = "two-network L2X: soft explanations work, hard ones fall to chance"
"""Claim 9, for `judge_l2x`."""
NEAR_CHANCE = 0.05
"""Largest distance from chance of an accuracy that counts as chance (claim 9; published: 0)."""
WORKING = 0.9
"""Accuracy above which soft explanations work (claim 9; published: 0.96)."""


@dataclass(frozen=True)
class Dataset:
    """One dataset's columns by key, and what kind of images it has (a key of `bla.paper.DATASETS`, or a stand-in).

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
        how = f"Wilcoxon signed-rank, {test.nonzero_pairs} non-zero pairs; {_show(interval)} within ±{delta:.4f}"
        return Finding(self.values(measure, first, second), how, test.p, holds)

    def little_cost(self, baseline: str) -> Finding:
        """Claim 2: baseline - BLA is at most LARGEST_COST and below half of baseline - L2X-F, by their intervals."""
        columns = self.dataset.columns
        bl, bla, l2x = (columns[key].measure("accuracy") for key in (baseline, "bla", "l2x_f"))
        cost, half = self._interval(bl - bla), self._interval((bl - bla) - (bl - l2x) / 2)
        yes, no = cost.high <= LARGEST_COST and half.high < 0, cost.low > LARGEST_COST or half.low > 0
        p = wilcoxon(columns[baseline].paired("accuracy"), columns["bla"].paired("accuracy")).p
        how = (
            f"bootstrap: cost {_show(cost)} at most {LARGEST_COST}, cost - half of L2X-F's {_show(half)} below 0; "
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
        return Finding(ours, f"Brown-Forsythe; ratio of standard deviations {_show(ratio)}", p, holds)

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
        how = f"crossed bootstrap over runs and images: {_show(interval)} within ±{COMPARABLE}; p of no difference by Wilcoxon signed-rank over images"
        return Finding(ours, how, test.p, "yes" if yes else "no" if no else "inconclusive")

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


def _show(interval: Interval) -> str:
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
    Claim(14, "explanation size varies from image to image", ("bla",), lambda j, m: j.varying_size("bla"), published=False),
    Claim(
        16, "BLA-T's loss stays below L2X-F's", ("bla_t", "l2x_f"),
        lambda j, m: j.difference("l2x_f", "bla_t", m), ("loss",),
    ),
    Claim(17, "L2X-F is worse than BL", ("l2x_f",), lambda j, m: _better(j, "bl", "l2x_f", m), BOTH),
)  # fmt: skip
"""The claims that Tables 1 and 2 can judge, in the paper's order."""


def judge_small_cnn(
    runs: pd.DataFrame, departures: Sequence[str], published: pd.DataFrame, alpha: float, resamples: int, seed: int
) -> list[dict[str, object]]:
    """Claims 8 and 15, a row for each way in which pooling may meet the dense unit; rows for `judge_claims`.

    `runs` is the table of `bla.small_cnn_results`; `departures` say how data and training depart from the paper's. Claim 15
    is about a number that L2X reached on MNIST, so no other data can answer it.
    """
    paper = published[published["dataset"] == "mnist_3_vs_8"].set_index(["method", "quantity"])["value"]
    bl, ours, l2x = (float(paper[name, "accuracy"]) for name in ("BL", "BLA-T", "L2X"))
    printed = {8: f"BL {bl:.3f}, BLA-T {ours:.3f}, p = {float(paper['BLA-T against BL', 'mann_whitney_p']):.2f}"}
    printed[15] = f"BLA-T {ours:.3f}, L2X {l2x:.3f}"
    rows: list[dict[str, object]] = []
    for (data, pooling), own in runs.groupby(["data", "pooling"], sort=False):
        x, y = (own.loc[own["column"] == column, "accuracy"].to_numpy(float) for column in ("bla_t", "bl"))
        told = [f"{name} {v.mean():.4f} ± {float(standard_error(v)):.4f}" for name, v in (("BL", y), ("BLA-T", x))]
        count = f"n = {len(x)} runs, {own['n_images'].iloc[0]} images"
        test, above = mann_whitney(x, y, resamples, seed), wilcoxon(x, np.full(len(x), l2x))
        within = test.interval.low > -DELTA_ACCURACY and test.interval.high < DELTA_ACCURACY
        how = f"Mann-Whitney's U; 95 % interval of the difference {_show(test.interval)} within ±{DELTA_ACCURACY}"
        holds = {8: "no" if test.p < alpha else "yes" if within else "inconclusive"}
        agree = (x.mean() - l2x) * above.effect_size > 0
        holds[15] = "inconclusive" if above.p >= alpha or not agree else "yes" if x.mean() > l2x else "no"
        found = {
            8: (f"{', '.join(told)} ({count})", how, test.p),
            15: (f"{told[1]} ({count})", f"Wilcoxon signed-rank of the runs against {l2x:.3f}", above.p),
        }
        for number, text in SMALL_CNN.items():
            row = {"claim": number, "text": f"{text}: {pooling} map", "dataset": data, "paper": printed[number]}
            if not str(data).startswith("mnist"):
                odd = "not MNIST"
                if number == 15:
                    rows.append(row | {"verdict": "not run", "reason": odd})
                    continue
            else:
                odd = f"not the paper's settings: {', '.join(departures)}" if departures else ""
            answer, how, p = found[number]
            row |= {"ours": answer, "test": how, "p": p, "holds_here": holds[number]}
            rows.append(row | {"verdict": "not run" if odd else VERDICTS[holds[number]], "reason": odd})
    return rows


def judge_l2x(
    runs: pd.DataFrame,
    kinds: Mapping[str, str],
    departures: Mapping[str, Sequence[str]],
    published: pd.DataFrame,
    resamples: int,
    seed: int,
) -> list[dict[str, object]]:
    """Claim 9, a row for each dataset and each reading that the paper may mean; rows for `judge_claims`.

    `runs` is the table of the stage l2x, `kinds` says what kind of images each dataset has, `departures` how its preparation
    and training depart from the paper's. Where nothing ran there is one row that says so.
    """
    paper = published[published["dataset"] == "cats_vs_dogs"].set_index(["method", "quantity"])["value"]
    soft, hard = (float(paper[f"L2X {how}", "accuracy"]) for how in ("soft", "hard"))
    printed = {"claim": 9, "paper": f"soft {soft:.2f}, hard {hard:.2f}"}
    meant = runs[(runs["background"] == "black") & ~runs["straight_through"].astype(bool)]
    if meant.empty:
        why = "none of l2x.readings is the paper's" if len(runs) else "none of l2x.datasets is among the datasets"
        return [printed | {"text": L2X, "verdict": "not run", "reason": why}]
    rows: list[dict[str, object]] = []
    for (name, reading), own in meant.groupby(["dataset", "reading"], sort=False):
        x, y = (own[f"{how}_accuracy"].to_numpy(float) for how in ("soft", "hard"))
        chance = 1 / int(own["n_classes"].iloc[0])
        by_soft, by_hard = bootstrap(x, resamples, seed), bootstrap(y, resamples, seed)
        low, high = chance - NEAR_CHANCE, chance + NEAR_CHANCE
        yes = low <= by_hard.low and by_hard.high <= high and by_soft.low > WORKING
        no = by_hard.low > high or by_hard.high < low or by_soft.high < WORKING
        holds = "yes" if yes else "no" if no else "inconclusive"
        told = [f"{how} {v.mean():.4f} ± {float(standard_error(v)):.4f}" for how, v in (("soft", x), ("hard", y))]
        row = printed | {"text": f"{L2X}: {reading}", "dataset": name, "holds_here": holds}
        row["ours"] = f"{', '.join(told)} (n = {len(x)} runs, {own['n_images'].iloc[0]} images)"
        row["test"] = (
            f"bootstrap: hard {_show(by_hard)} within {chance:.2f} ± {NEAR_CHANCE}, soft {_show(by_soft)} above {WORKING}; "
            f"p of hard = {chance:.2f} by Wilcoxon signed-rank"
        )
        row["p"] = wilcoxon(y, np.full(len(y), chance)).p
        left_out = int(own["n_images_left_out"].iloc[0])
        odd = [*departures[str(name)], *([f"{left_out} images left out (paper: none)"] if left_out else [])]
        if kinds[str(name)] != "cats_vs_dogs":
            rows.append(row | {"verdict": "not run", "reason": "not the paper's dataset"})
        elif odd:
            rows.append(row | {"verdict": "not run", "reason": f"not the paper's settings: {', '.join(odd)}"})
        else:
            rows.append(row | {"verdict": VERDICTS[holds], "reason": ""})
    return rows


def judge_claims(
    datasets: list[Dataset],
    published: pd.DataFrame,
    alpha: float,
    resamples: int,
    seed: int,
    others: Sequence[dict[str, object]] = (),
) -> pd.DataFrame:
    """Every claim of the paper, judged on every dataset it can be tried on: one row a claim, dataset and measure.

    `others` are rows that were judged elsewhere (`judge_small_cnn`, `judge_l2x`).

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
    rows += [
        {"claim": number, "text": text, "verdict": "not run", "reason": reason}
        for number, (text, reason) in NOT_RUN.items()
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
        return row | {"verdict": "not run", "reason": "not one of the paper's datasets"}
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
