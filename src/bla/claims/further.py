"""Claims about experiments beside Table 1 and Table 2, each judged on the table of its stage: rows for `bla.claims.judge.judge_claims`.

    rows = judge_small_cnn(...) + judge_l2x(...) + judge_alternatives(...)

As in `bla.claims.judge` the rules were fixed before any number was seen, and only the paper's data at the paper's settings get a
verdict.

Source: Baumhauer et al. 2021, sections 3.3 and 4.1.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from bla.base.paper import DATASETS
from bla.claims.judge import DELTA_ACCURACY, VERDICTS, Dataset, Finding, show
from bla.inference.paired import bootstrap, standard_error, wilcoxon
from bla.inference.unpaired import mann_whitney

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

ALTERNATIVES = {
    "concept_vector": (11, "with a concept vector the explanation collapses to one cell"),
    "pointwise": (12, "pointwise attention is unfocused"),
}
"""The claims about the modules of section 3.3 by kind of explanation, for `judge_alternatives`."""
ONE_CELL = 0.95
"""Share of images with a single cell from which on a run has collapsed (claim 11)."""
FAR_BELOW = -100
"""Median largest logit below which a run has left the bound (claim 11; the paper's are around -1000)."""


def judge_small_cnn(
    runs: pd.DataFrame, departures: Sequence[str], published: pd.DataFrame, alpha: float, resamples: int, seed: int
) -> list[dict[str, object]]:
    """Claims 8 and 15, a row for each way in which pooling may meet the dense unit; rows for `judge_claims`.

    `runs` is the table of `bla.experiments.small_cnn.tables`; `departures` say how data and training depart from the paper's. Claim 15
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
        how = f"Mann-Whitney's U; 95 % interval of the difference {show(test.interval)} within ±{DELTA_ACCURACY}"
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


def judge_alternatives(runs: pd.DataFrame, datasets: Sequence[Dataset], alpha: float) -> list[dict[str, object]]:
    """Claims 11 and 12, a row for each dataset and variant of the table of `bla.experiments.abandoned_modules.tables`; rows for `judge_claims`.

    Claim 11 is asked of every run by itself: at least `ONE_CELL` of its images have one cell, and the median of their largest
    logits lies below `FAR_BELOW`; a binomial test says whether most runs pass. Claim 12: explanations are larger than those of
    BLA's run from the same head.
    """
    rows: list[dict[str, object]] = []
    for dataset in datasets:
        own = runs[runs["dataset"] == dataset.name].sort_values("run")
        parts = {(str(v), str(e)): part for (v, e), part in own.groupby(["variant", "explanation"], sort=False)}
        bla = parts.pop(("bla", "bounded_logits"), pd.DataFrame())
        for (variant, explanation), part in parts.items():
            number, text = ALTERNATIVES[explanation]
            finding = _collapsed(part, alpha) if number == 11 else _larger(part, bla, alpha)
            row: dict[str, object] = {"claim": number, "text": f"{text} ({variant})", "dataset": dataset.name}
            row |= {"ours": finding.ours, "test": finding.test, "p": finding.p, "holds_here": finding.holds_here}
            verdict, reason = "not run", "not one of the paper's datasets"
            if dataset.kind in DATASETS:
                odd = ", ".join(dataset.departures)
                verdict, reason = ("not run", f"not the paper's settings: {odd}") if odd else (VERDICTS[finding.holds_here], "")  # fmt: skip
            rows.append(row | {"verdict": verdict, "reason": reason})
    missing = set(ALTERNATIVES) - set(runs["explanation"])
    for number, text in sorted(ALTERNATIVES[explanation] for explanation in missing):
        rows.append({"claim": number, "text": text, "verdict": "not run", "reason": "`alternatives` trained none"})
    return rows


def _collapsed(runs: pd.DataFrame, alpha: float) -> Finding:
    """Whether most runs of a concept vector keep one cell, far below the bound."""
    one, logit = runs["share_one_cell"].to_numpy(float), runs["median_largest_logit"]
    passing = int(((one >= ONE_CELL) & (logit < FAR_BELOW)).sum())
    p = float(binomtest(passing, len(runs)).pvalue)
    holds = "inconclusive" if p >= alpha else "yes" if passing > len(runs) / 2 else "no"
    ours = (
        f"one cell in {one.mean():.3f} ± {float(standard_error(one)):.3f} of images, largest logits by run from "
        f"{logit.min():.4g} to {logit.max():.4g} ({_count(runs)})"
    )
    how = f"{passing} of {len(runs)} runs with one cell in {ONE_CELL:.0%} of images and a median largest logit below {FAR_BELOW}, binomial test"  # fmt: skip
    return Finding(ours, how, p, holds)


def _larger(runs: pd.DataFrame, bla: pd.DataFrame, alpha: float) -> Finding:
    """Whether pointwise attention keeps more cells than BLA."""
    x, y = (part["explanation_size"].to_numpy(float) for part in (runs, bla))
    test, mean = wilcoxon(x, y), float((x - y).mean())
    unclear = test.p >= alpha or mean * test.effect_size <= 0
    holds = "inconclusive" if unclear else "yes" if mean > 0 else "no"
    empty = runs["share_empty"].to_numpy(float)
    told = [f"{name} {v.mean():.2f} ± {float(standard_error(v)):.2f}" for name, v in (("pointwise", x), ("BLA", y))]
    ours = f"{', '.join(told)} cells; none in {empty.mean():.3f} ± {float(standard_error(empty)):.3f} of images ({_count(runs)})"  # fmt: skip
    how = f"Wilcoxon signed-rank, {test.nonzero_pairs} non-zero pairs, rank-biserial {test.effect_size:+.2f}"
    return Finding(ours, how, test.p, holds)


def _count(runs: pd.DataFrame) -> str:
    return f"n = {len(runs)} runs, {runs['n_images'].iloc[0]} images"


def judge_l2x(
    runs: pd.DataFrame,
    kinds: Mapping[str, str],
    departures: Mapping[str, Sequence[str]],
    published: pd.DataFrame,
    resamples: int,
    seed: int,
) -> list[dict[str, object]]:
    """Claim 9, a row for each dataset and each reading that the paper may mean; rows for `judge_claims`.

    It holds if the 95 % interval of the hard accuracy over runs lies within `NEAR_CHANCE` of chance and that of the soft accuracy
    above `WORKING`, and not if one of them lies wholly outside. `runs` is the table of the stage l2x, `kinds` says what kind of images each dataset has, `departures` how its preparation
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
            f"bootstrap: hard {show(by_hard)} within {chance:.2f} ± {NEAR_CHANCE}, soft {show(by_soft)} above {WORKING}; "
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
