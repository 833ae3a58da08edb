"""Explanation size, the number of cells of a hard explanation: by image, by class, and against confidence.

    per_run(size, confidence, correct, labels)                   # a row per run
    relations(size, confidence, correct, labels, 9999, seed)     # is size related to confidence, error, class?

Sizes are int `[R, N]`, the number of cells in the explanations of R runs and N images. The paper says that a varying
size distinguishes bounded logits from L2X (Baumhauer et al. 2021, section 3.1), but not what the size depends on.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import rankdata

from bla.base.rounding import joined
from bla.experiments.runs import corrected
from bla.inference.paired import standard_error, student, wilcoxon
from bla.inference.permutation import permutation_test
from bla.metrics.rank_correlation import spearman

Array = NDArray[np.float64]
Sizes = NDArray[np.int16]

FEWEST = 10
"""Smallest number of images in a bin of sizes for which a run's mean is used."""

QUANTITIES = {
    "rho_confidence": "Spearman's ρ with confidence",
    "wrong_minus_right": "wrong − right predictions (cells)",
    "eta2_class": "share of variance between classes (η²)",
}
"""The quantities computed for each run. Their means over runs are tested against the value without a relation."""
RELATIONS = ["quantity", "meaning", "n_runs", "n_images", "mean", "mean_standard_error", "without_relation"]
RELATIONS += ["low", "high", "rank_biserial", "p", "p_smallest"]
"""The columns of `relations`."""


def per_run(size: Sizes, confidence: Array, correct: NDArray[np.bool_], labels: NDArray[np.int64]) -> pd.DataFrame:
    """A row per run: the distribution of size over images, and its relation to confidence, error and class.

    `QUANTITIES` are NaN if all sizes are equal, or no prediction is wrong.
    """
    quartiles = np.quantile(size, [0.25, 0.5, 0.75], axis=1)
    rows = []
    for run, (cells, right) in enumerate(zip(size, correct, strict=True)):
        values, counts = np.unique(cells, return_counts=True)
        wrong = cells[~right].mean() - cells[right].mean() if 0 < right.sum() < len(right) else np.nan
        rows.append(
            {
                "run": run,
                "n_images": len(cells),
                "mean": cells.mean(),
                "standard_deviation": cells.std(ddof=1),
                "quartile_low": quartiles[0, run],
                "median": quartiles[1, run],
                "quartile_high": quartiles[2, run],
                "commonest": values[counts.argmax()],
                "commonest_share": counts.max() / len(cells),
                "n_wrong": int((~right).sum()),
                "rho_confidence": float(spearman(cells[None].astype(float), confidence[run][None])[0]),
                "wrong_minus_right": wrong,
                "eta2_class": _between(cells, labels),
                "eta2_by_chance": (len(np.unique(labels)) - 1) / (len(labels) - 1),
            }
        )
    return pd.DataFrame(rows)


def _between(cells: Sizes, labels: NDArray[np.int64]) -> float:
    """Eta squared: sum of squares between classes / total sum of squares; images without a class form one group."""
    groups = np.unique(labels, return_inverse=True)[1]
    counts = np.bincount(groups)
    means = np.bincount(groups, weights=cells) / counts
    total = float(((cells - cells.mean()) ** 2).sum())
    return float((counts * (means - cells.mean()) ** 2).sum()) / total if total else np.nan


def per_class(size: Sizes, labels: NDArray[np.int64], names: list[str]) -> pd.DataFrame:
    """A row per class: its mean size over images, averaged over runs, with the standard error over runs."""
    rows = []
    for label, name in enumerate(names):
        if not (members := labels == label).any():
            continue
        means = size[:, members].mean(axis=1)
        row = {"class": name, "n_images": int(members.sum()), "n_runs": len(size), "mean": means.mean()}
        rows.append(row | {"standard_error": float(standard_error(means))})
    return pd.DataFrame(rows)


def per_bin(size: Sizes, confidence: Array, correct: NDArray[np.bool_], cells: int) -> pd.DataFrame:
    """A row per bin of sizes, `low` to `high`: the share of images, their mean confidence and accuracy.

    All are means over runs, with standard errors. Confidence and accuracy are over the `n_runs` runs with at least
    `FEWEST` images in the bin.
    """
    step = max(1, round(cells / 12))
    rows = []
    for low in range(1, cells + 1, step):
        high = min(low + step - 1, cells)
        inside = (size >= low) & (size <= high)
        enough = inside.sum(axis=1) >= FEWEST
        row: dict[str, float] = {"low": low, "high": high, "n_runs": int(enough.sum())}
        row |= _mean("share", inside.mean(axis=1))
        for name, values in (("confidence", confidence), ("accuracy", correct.astype(float))):
            row |= _mean(name, np.array([v[t].mean() for v, t in zip(values[enough], inside[enough], strict=True)]))
        rows.append(row)
    return pd.DataFrame(rows)


def _mean(name: str, values: Array) -> dict[str, float]:
    error = float(standard_error(values)) if len(values) > 1 else np.nan
    return {name: values.mean() if len(values) else np.nan, f"{name}_standard_error": error}


def relations(
    size: Sizes, confidence: Array, correct: NDArray[np.bool_], labels: NDArray[np.int64], resamples: int, seed: int
) -> pd.DataFrame:
    """A row for each of `QUANTITIES`: its mean over runs, and a permutation test of no relation over images.

    The test keeps the sizes of all runs together and permutes the images to which they belong, since all runs have the
    same images and sizes are skewed. It generalises to other images, for these runs. `low` and `high` are
    Student's 95 % interval of the mean over runs; `without_relation` is the mean over all orders of the images; `n_runs`
    counts runs in which the quantity is defined. `rank_biserial` says in how many runs, by ranks, the quantity is above
    (+1: in all) or below `without_relation`.
    """
    runs = per_run(size, confidence, correct, labels)
    p = permutation_test(_means_by_order(size, confidence, correct, labels), size.shape[1], resamples, seed)
    rows = []
    for (quantity, meaning), p_of_quantity in zip(QUANTITIES.items(), p, strict=True):
        values = runs[quantity].dropna().to_numpy(float)
        expected = runs["eta2_by_chance"].iloc[0] if quantity == "eta2_class" else 0.0
        row = {"quantity": quantity, "meaning": meaning, "n_runs": len(values), "n_images": size.shape[1]}
        row |= _mean("mean", values) | {"without_relation": expected}
        if len(values):
            interval, test = student(values), wilcoxon(values, np.full(len(values), expected))
            row |= {"low": interval.low, "high": interval.high, "rank_biserial": test.effect_size}
            row |= {"p": p_of_quantity, "p_smallest": 1 / (resamples + 1)}
        rows.append(row)
    return pd.DataFrame(rows, columns=RELATIONS)


def with_holm(relations: pd.DataFrame) -> pd.DataFrame:
    """The relations of all datasets and variants with `p_holm` and `p_holm_smallest`, a family for each quantity.

    The three quantities are three questions.
    """
    return corrected(relations.reset_index(drop=True), ["quantity"])


def _means_by_order(
    size: Sizes, confidence: Array, correct: NDArray[np.bool_], labels: NDArray[np.int64]
) -> Callable[[NDArray[np.int64]], Array]:
    """A function of the order of the images: means over runs of `QUANTITIES` `[3]`, if sizes are in this order.

    Runs in which a quantity is undefined have zeros, in every order.
    """
    by_class = np.argsort(labels, kind="stable")
    starts = np.flatnonzero(np.diff(labels[by_class], prepend=labels[by_class[0]] - 1))
    counts = np.diff(starts, append=len(labels))
    ranks, lengths = _standardised(rankdata(size, axis=1))[0], _standardised(size)[1]
    wrong = (~correct).sum(axis=1, keepdims=True)
    both = (wrong > 0) & (wrong < correct.shape[1])
    contrast = np.where(correct, -1 / np.maximum(correct.shape[1] - wrong, 1), 1 / np.maximum(wrong, 1)) * both
    # Images are the first axis, because taking whole rows is fast; weights are in the order of the classes.
    confident = _standardised(rankdata(joined(confidence), axis=1))[0]
    weights = np.concatenate([confident, contrast * lengths]).T[by_class].copy()
    sizes = np.concatenate([ranks, _standardised(size)[0]]).T.copy()  # [N, 2R]

    def means(order: NDArray[np.int64]) -> Array:
        permuted = sizes.take(order[by_class], axis=0)
        rho, difference = np.einsum("nk,nk->k", permuted, weights).reshape(2, -1).sum(axis=1)
        sums = np.add.reduceat(permuted[:, len(size) :], starts)  # [classes, R]
        return np.array([rho, difference, ((sums**2).sum(axis=1) / counts).sum()]) / len(size)

    return means


def _standardised(values: NDArray[Any]) -> tuple[Array, Array]:
    """Each run's values `[R, N]` with mean 0 and length 1, zeros if they are all equal; and the lengths before `[R, 1]`."""
    centred = values - values.mean(axis=1, keepdims=True)
    length = np.sqrt((centred**2).sum(axis=1, keepdims=True))
    return np.divide(centred, length, out=np.zeros_like(centred), where=length > 0), length
