"""Choices that the paper does not state, and what each changes.

Five choices affect the paper's numbers but are not in its text: the input normalisation, whether stochastic depth
stayed on in the frozen backbone, how the threshold cuts, whether BLA-PH's head was really frozen, and that the variants
train twice as long as the baseline. Normalisation, stochastic depth and threshold rule are fully crossed; comparisons
pair run r with run r, which have the same random numbers.

    runs                                  # a row per run, column and preparation, as `experiment.measure` returns them
    cells(runs)                           # means with standard errors
    effects(runs)                         # what each choice changes
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd

from bla.experiments.runs import corrected
from bla.inference.paired import smallest_p, standard_error, student, wilcoxon

MEASURES = ("accuracy", "loss", "explanation_size")
PREPARATION = ["normalisation", "stochastic_depth"]


@dataclass(frozen=True)
class Choice:
    """A choice: between two settings of the preparation, or between two columns."""

    name: str
    reference: str
    other: str
    columns: tuple[str, str] | None = None


CHOICES = (
    Choice("normalisation", "as_trained", "keras_2021"),
    Choice("stochastic_depth", "0.0", "0.2"),
    Choice("threshold rule", "subtract", "renormalise", ("bla_t", "bla_t_renormalise")),
    Choice("threshold rule", "subtract", "indicator", ("bla_t", "bla_t_indicator")),
    Choice("head of BLA-PH", "frozen", "trained as released (BLA-T)", ("bla_ph", "bla_t")),
    Choice("head of BLA-PH", "frozen", "trained, reloaded", ("bla_ph", "bla_ph_reloaded")),
    Choice("training time of BL", "as published", "as long as the variants (BL+)", ("bl", "bl_plus")),
)


def cells(runs: pd.DataFrame) -> pd.DataFrame:
    """Mean, standard error and number of runs: a row per dataset, preparation, column and measure.

    `runs` has a row per run with the columns dataset, normalisation, stochastic_depth, draws, column, run and the
    measures (explanation_size empty for BL).
    """
    rows = []
    keys = ["dataset", *PREPARATION, "draws", "column"]
    for key, group in runs.groupby(keys, sort=False):
        for measure in MEASURES:
            values = group[measure].dropna().to_numpy()
            if len(values):
                row = dict(zip(keys, key, strict=True)) | {"measure": measure, "n_runs": len(values)}
                rows.append(row | {"mean": values.mean(), "standard_error": float(standard_error(values))})
    return pd.DataFrame(rows, columns=[*keys, "measure", "n_runs", "mean", "standard_error"])


def effects(runs: pd.DataFrame) -> pd.DataFrame:
    """What each choice changes: other - reference over paired runs, with interval, test and effect size.

    A row per dataset, choice, column, setting of the other choices, and measure. If `setting` is "all", runs are first
    averaged over those settings: the main effect. The interval is Student's. A family is the main effects of one
    dataset, choice and measure, or its single settings, without rows in which nothing changes: what a choice does to a
    measure is a question of its own. Eight columns need nine runs to answer it.
    """
    rows = []
    for dataset, group in runs.groupby("dataset", sort=False):
        for choice, measure in product(CHOICES, MEASURES):
            for column, setting, pairs in _pairs(group, choice, measure):
                difference = (pairs["other"] - pairs["reference"]).to_numpy()
                test = wilcoxon(difference.round(9), np.zeros(len(difference)))  # so that equal differences are ties
                interval = student(difference)
                row = {"dataset": dataset, "choice": choice.name, "reference": choice.reference, "other": choice.other}
                row |= {"column": column, "setting": setting, "measure": measure, "n_runs": len(difference)}
                row |= {"mean_reference": pairs["reference"].mean(), "mean_other": pairs["other"].mean()}
                row |= {"difference": difference.mean(), "standard_error": float(standard_error(difference))}
                row |= {"low": interval.low, "high": interval.high, "rank_biserial": test.effect_size}
                row |= {"nonzero_pairs": test.nonzero_pairs, "p": test.p}
                rows.append(row | {"p_smallest": smallest_p(len(difference))})
    names = ["dataset", "choice", "reference", "other", "column", "setting", "measure", "n_runs", "mean_reference"]
    names += [
        "mean_other",
        "difference",
        "standard_error",
        "low",
        "high",
        "rank_biserial",
        "nonzero_pairs",
        "p",
        "p_smallest",
    ]
    table = pd.DataFrame(rows, columns=names)
    changed = table[table["nonzero_pairs"] > 0]
    holms = corrected(changed.assign(main=changed["setting"] == "all"), ["dataset", "main", "choice", "measure"])
    table = table.drop(columns="p_smallest").join(holms[["p_holm", "p_holm_smallest"]])
    return table.assign(p_holm=table["p_holm"].fillna(1.0))


def _pairs(runs: pd.DataFrame, choice: Choice, measure: str) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """The paired values of each column and setting: a row per run, `reference` and `other`."""
    if choice.columns:
        levels = dict(zip(choice.columns, ("reference", "other"), strict=True))
        chosen = runs[runs["column"].isin(levels)].assign(
            level=lambda r: r["column"].map(levels), column=choice.columns[1]
        )
        others = PREPARATION
    else:
        levels = {choice.reference: "reference", choice.other: "other"}
        if not set(levels) <= set(runs[choice.name].astype(str)):
            return  # skipped: the backbone has no stochastic depth
        chosen = runs.assign(level=runs[choice.name].astype(str).map(levels))
        others = [name for name in PREPARATION if name != choice.name]
    for column, group in chosen.dropna(subset=[measure]).groupby("column", sort=False):
        table = group.pivot_table(index=[*others, "run"], columns="level", values=measure)
        for setting, part in table.groupby(level=others):
            setting_text = ", ".join(f"{name} {value}" for name, value in zip(others, setting, strict=True))
            yield str(column), setting_text, part
        yield str(column), "all", table.groupby(level="run").mean()
