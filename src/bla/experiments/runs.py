"""Shared by experiments: tables of runs, means with standard errors, and paired comparisons of runs.

runs = table_of_runs(result).assign(dataset=..., seed=...)      # a row per run
means(runs, ["dataset", "variant"], ["accuracy", "loss"])
paired(x, y)                                                    # run r of x against run r of y
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bla.base.rounding import larger
from bla.inference.paired import holm, smallest_p, standard_error, student, wilcoxon

if TYPE_CHECKING:
    from torch import Tensor

    from bla.method.modules import Evaluation

Array = NDArray[np.float64]

SIZE_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
NAN_WITHOUT_EXPLANATIONS = [
    *("soft_accuracy", "soft_loss", "explanation_size"),
    *(f"explanation_size_q{round(100 * q):02d}" for q in SIZE_QUANTILES),
    "effective_cells",
    *("share_one_cell", "share_empty", "share_at_bound", "share_never_at_bound", "share_without_weight"),
    *("smallest_logit", "median_largest_logit", "largest_logit"),
]


def table_of_runs(result: "Evaluation") -> pd.DataFrame:
    """A table with a row per run, all on the same images; columns about explanations are NaN without explanations.

    `correct` (number of images), `accuracy` and `loss` (nats) are with hard explanations, `soft_accuracy` and
    `soft_loss` with soft ones. `explanation_size` is the mean number of cells; its quantiles are over images. A share
    is a share of images: with one cell or no cell; with all cells or no cell at the bound (logit 0); without any
    weight. `effective_cells` is exp(entropy) of the soft weights, averaged over images with weight: n if all weights
    are equal, 1 if one cell has all the weight. `median_largest_logit` is the median over images of an image's largest
    logit.
    """
    table = pd.DataFrame({"run": range(len(result.correct)), "n_images": result.correct.shape[1]})
    table["correct"] = result.correct.sum(dim=1).numpy()
    table["accuracy"] = table["correct"] / table["n_images"]
    table["loss"] = result.loss.double().mean(dim=1).numpy()
    table[NAN_WITHOUT_EXPLANATIONS] = np.nan
    if (explained := result.explained) is None:
        return table
    logits, size = explained.logits, explained.hard.sum(dim=2).double().numpy()  # [R, N, n], [R, N]
    at_bound = logits == 0
    table["soft_accuracy"] = explained.correct.sum(dim=1).numpy() / table["n_images"]
    table["soft_loss"] = explained.loss.double().mean(dim=1).numpy()
    table["explanation_size"] = size.mean(axis=1)
    for q, values in zip(SIZE_QUANTILES, np.quantile(size, SIZE_QUANTILES, axis=1), strict=True):
        table[f"explanation_size_q{round(100 * q):02d}"] = values
    table["effective_cells"] = _effective_cells(explained.soft.double()).nanmean(dim=1).numpy()
    table["share_one_cell"], table["share_empty"] = (size == 1).mean(axis=1), (size == 0).mean(axis=1)
    table["share_at_bound"] = at_bound.all(dim=2).double().mean(dim=1).numpy()
    table["share_never_at_bound"] = 1 - at_bound.any(dim=2).double().mean(dim=1).numpy()
    table["share_without_weight"] = (explained.soft.sum(dim=2) == 0).double().mean(dim=1).numpy()
    table["smallest_logit"] = logits.amin(dim=(1, 2)).numpy()
    largest = logits.amax(dim=2).double().numpy()
    table["median_largest_logit"], table["largest_logit"] = np.median(largest, axis=1), largest.max(axis=1)
    return table


def _effective_cells(weights: "Tensor") -> "Tensor":
    """exp(entropy) `[...]` of weights `[..., n]`, which need not sum to 1; NaN if all are 0."""
    shares = weights / weights.sum(dim=-1, keepdim=True)
    return (-(shares.xlogy(shares)).sum(dim=-1)).exp()


def one_table(tables: Iterable[pd.DataFrame], columns: Sequence[str]) -> pd.DataFrame:
    """Tables of runs concatenated, with these columns; empty if no dataset ran."""
    parts = list(tables)
    return pd.concat(parts)[list(columns)] if parts else pd.DataFrame(columns=list(columns))


def means(runs: pd.DataFrame, keys: Sequence[str], measures: Sequence[str]) -> pd.DataFrame:
    """A row per combination of keys, in order: n_runs, n_images, and the mean and standard error of each measure."""
    rows = []
    for key_values, group in runs.groupby(list(keys), sort=False):
        row: dict[str, object] = dict(zip(keys, key_values, strict=True))
        row |= {"n_runs": len(group), "n_images": group["n_images"].iloc[0]}
        for name in measures:
            values = group[name].to_numpy(float)
            row |= {name: values.mean(), f"{name}_standard_error": float(standard_error(values))}
        rows.append(row)
    spread = [column for name in measures for column in (name, f"{name}_standard_error")]
    return pd.DataFrame(rows, columns=[*keys, "n_runs", "n_images", *spread])


PAIRED = ["n_runs", "difference", "low", "high", "rank_biserial", "p", "p_smallest"]
"""The columns of `paired`."""


def paired(x: Array, y: Array) -> dict[str, object]:
    """Run r of x against run r of y: x - y with Student's 95 % interval, rank-biserial correlation and Wilcoxon's p.

    `p_smallest` is the smallest p that this number of runs can give.
    """
    test = wilcoxon((x - y).round(9), np.zeros(len(x)))  # so that equal differences are ties
    values = (len(x), float((x - y).mean()), *student(x - y), test.effect_size, test.p, smallest_p(len(x)))
    return dict(zip(PAIRED, values, strict=True))


def corrected(tests: pd.DataFrame, family: Sequence[str]) -> pd.DataFrame:
    """The tests with `p_holm`, corrected within each family, and `p_holm_smallest` in place of `p_smallest`.

    Rows with equal values in the columns `family` are a family; rows without p belong to none. `p_holm_smallest` is the
    smallest `p_holm` that the numbers of runs or images of the family can give: if it is not below alpha, the test
    cannot be significant, and a larger p says nothing.
    """
    groups = tests[tests["p"].notna()].groupby(list(family), sort=False)
    p_holm, smallest = (groups[name].transform(lambda p: holm(p.to_numpy(float))) for name in ("p", "p_smallest"))
    return tests.drop(columns="p_smallest").assign(p_holm=p_holm, p_holm_smallest=smallest)


Measure = Literal["accuracy", "loss"]


@dataclass(frozen=True)
class Column:
    """Results of R runs on N images: `correct` bool `[R, N]`, `loss` `[R, N]` in nats, `size` int `[R, N]` or None."""

    correct: NDArray[np.bool_]
    loss: Array
    size: NDArray[np.int16] | None = None

    def measure(self, measure: Measure) -> Array:
        """Accuracy or mean loss of each run `[R]`."""
        means: Array = self.per_image(measure).mean(axis=1)
        return means

    def per_image(self, measure: Measure) -> Array:
        """Correctness (0 or 1) or loss of each run and image `[R, N]`."""
        return self.correct.astype(np.float64) if measure == "accuracy" else self.loss

    def paired(self, measure: Measure) -> Array:
        """The values for paired tests `[R]`: counts of correct images, so that ties are exact, or mean losses."""
        return self.correct.sum(axis=1).astype(np.float64) if measure == "accuracy" else self.measure("loss")


def with_titles(table: pd.DataFrame, titles: Mapping[str, str]) -> pd.DataFrame:
    """The table with a column of titles after the methods' names."""
    table.insert(list(table.columns).index("method") + 1, "title", table["method"].map(titles))
    return table


DID_NOT_TRAIN = ", did not train"
"""What follows the title of a learned method that is not better than a constant mask."""


def did_not_train(methods: pd.DataFrame) -> "pd.Series[bool]":
    """Which learned methods do not reach a lower value of their own objective than the best constant mask.

    A module that died gives constant weights: the values are then equal up to rounding.
    """
    constant, value = (methods[name].to_numpy(float) for name in ("objective_of_constant", "objective"))
    return methods["objective_of_constant"].notna() & ~larger(constant, value)


def mark_untrained(table: pd.DataFrame, untrained: Collection[tuple[str, str]]) -> pd.DataFrame:
    """The table with `DID_NOT_TRAIN` after the titles of the `untrained` pairs of dataset and method."""
    pairs = zip(table["dataset"], table["method"], strict=True)
    return table.assign(title=table["title"] + [DID_NOT_TRAIN * (pair in untrained) for pair in pairs])
