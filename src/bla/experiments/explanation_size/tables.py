"""Explanation size, the number of cells of a hard explanation: by image, by class, and against confidence.

    runs = per_run(size, confidence, correct, labels)                # a row per run
    relations(runs)                                                  # is size related to confidence, error, class?

Sizes are int `[R, N]`, the number of cells in the explanations of R runs and N images. The paper says that a varying
size distinguishes bounded logits from L2X (Baumhauer et al. 2021, section 3.1), but not what the size depends on.
"""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bla.inference.paired import bootstrap, holm, standard_error, wilcoxon
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
"""The quantities computed for each run. Over runs they are tested against their value without a relation."""


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


def relations(runs: pd.DataFrame, resamples: int, seed: int) -> pd.DataFrame:
    """Each of `QUANTITIES` over the runs of a dataset and variant, tested against its value without a relation.

    Wilcoxon's signed-rank test of one value per run, with Holm's p: the result generalises to more trainings, not to
    more images. `low` and `high` are a 95 % bootstrap interval of the mean over runs; `n_runs` counts runs in which the
    quantity is defined.
    """
    rows = []
    for (dataset, variant), group in runs.groupby(["dataset", "variant"], sort=False):
        for quantity, meaning in QUANTITIES.items():
            expected = group["eta2_by_chance"] if quantity == "eta2_class" else 0 * group["run"]
            defined = group[quantity].notna()
            values, null = group.loc[defined, quantity].to_numpy(float), expected[defined].to_numpy(float)
            row = {"dataset": dataset, "variant": variant, "quantity": quantity, "meaning": meaning}
            row |= {"n_runs": len(values), "n_images": group["n_images"].iloc[0]} | _mean("mean", values)
            row["without_relation"] = expected.iloc[0]
            if len(values):
                interval, test = bootstrap(values, resamples, seed), wilcoxon(values, null)
                row |= {"low": interval.low, "high": interval.high, "rank_biserial": test.effect_size, "p": test.p}
            rows.append(row)
    columns = ["dataset", "variant", "quantity", "meaning", "n_runs", "n_images", "mean", "mean_standard_error"]
    table = pd.DataFrame(rows, columns=[*columns, "without_relation", "low", "high", "rank_biserial", "p", "p_holm"])
    tested = table["p"].notna()
    table.loc[tested, "p_holm"] = holm(table.loc[tested, "p"].to_numpy(float))
    return table
