"""Tables of minimal sufficient explanations (M9), of hard explanations beside them, and of decisive parts."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from bla.experiments.runs import corrected
from bla.inference.paired import crossed, smallest_p, student, wilcoxon
from bla.inference.unpaired import mann_whitney, smallest_mann_whitney_p

Array = NDArray[np.float64]
QUANTITIES = ("smallest_set", "sets", "different_sets_0", "different_sets_1", "different_sets_2")
SUMMARY = ["dataset", "group", "n_images", "n_without", "quantity", "mean", "low", "high", "median", "largest"]
TESTS = ["dataset", "quantity", "n_right", "n_wrong", "difference", "low", "high", "rank_biserial", "p", "p_smallest"]
EXPLAINED = ["dataset", "group", "patches", "n_images", "share", "low", "high"]
IMAGES = [
    "dataset",
    "image",
    "class",
    "right",
    "confidence",
    *QUANTITIES,
    "sets_found",
    "most_sets",
    "minimal_sets",
    "black_suffices",
]
NUMBERS = ["mean", "low", "high", "random", "random_low", "random_high", "rank_biserial", "p", "p_smallest"]
HARD = ["dataset", "method", "title", "n_runs", "n_images", "cells", "run", "cells_of_run", "quantity", *NUMBERS]
PARTS = ["dataset", "method", "title", "n_parts", "n_images", "cells", "share_held", "low", "high", "random"]


def of_images(images: pd.DataFrame, cells: int) -> dict[str, pd.DataFrame]:
    """The tables of the images' sets by the ends of their names; `cells` is the number of cells of the largest grid."""
    tables = {"_images": images, "": summary(images), "_tests": right_against_wrong(images)}
    return tables | {"_explained": explained(images, cells)}


def corrected_by_method(hard: pd.DataFrame) -> pd.DataFrame:
    """The rows of hard explanations with corrected p; the quantities of a method on a dataset are a family."""
    return corrected(hard.reset_index(drop=True), ["dataset", "method"])


def groups(images: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """All images of a dataset, those predicted right and wrong, and those of each class."""
    right = images["right"].astype(bool)
    found = {"all": images, "right": images[right], "wrong": images[~right]}
    found |= {f"class {name}": rows for name, rows in images.groupby("class", sort=True)}
    return {name: rows for name, rows in found.items() if len(rows)}


def with_sets(images: pd.DataFrame) -> pd.DataFrame:
    """The images that have a sufficient set of patches."""
    return images[images["smallest_set"].notna()]


def summary(images: pd.DataFrame) -> pd.DataFrame:
    """Means of each quantity with Student's 95 % interval over images, by dataset and group.

    `n_images` have a sufficient set; `n_without` have none, mostly because the black image suffices, and count no further.
    """
    rows = []
    for dataset, of_dataset in images.groupby("dataset", sort=False):
        for group, members in groups(of_dataset).items():
            counted = with_sets(members)
            counts = len(counted), len(members) - len(counted)
            for quantity in QUANTITIES:
                values = counted[quantity].to_numpy(float)
                numbers = (
                    (values.mean(), *student(values), np.median(values), values.max()) if len(values) else [np.nan] * 5
                )
                row = (dataset, group, *counts, quantity, *numbers)
                rows.append(dict(zip(SUMMARY, row, strict=True)))
    return pd.DataFrame(rows, columns=SUMMARY)


def right_against_wrong(images: pd.DataFrame) -> pd.DataFrame:
    """Mann-Whitney's test of right against wrong predictions, and Welch's interval of the difference, by dataset.

    The quantities of a dataset are a family (`corrected`). Images without a sufficient set are left out.
    """
    rows = []
    for dataset, members in with_sets(images).groupby("dataset", sort=False):
        right = members["right"].to_numpy(bool)
        if right.all() or not right.any():
            continue
        for quantity in QUANTITIES:
            values = members[quantity].to_numpy(float)
            test = mann_whitney(values[right], values[~right])
            n_right, n_wrong = int(right.sum()), int((~right).sum())
            row = (dataset, quantity, n_right, n_wrong, test.difference, *test.interval, test.effect_size, test.p)
            rows.append(dict(zip(TESTS, (*row, smallest_mann_whitney_p(n_right, n_wrong)), strict=True)))
    return corrected(pd.DataFrame(rows, columns=TESTS), ["dataset"])


def explained(images: pd.DataFrame, cells: int) -> pd.DataFrame:
    """Of the images with a sufficient set, the share that has one of at most k patches, with its exact 95 % interval, for k to `cells`."""
    rows = []
    for dataset, of_dataset in with_sets(images).groupby("dataset", sort=False):
        for group, members in groups(of_dataset).items():
            for patches in range(1, cells + 1):
                count, n = int((members["smallest_set"] <= patches).sum()), len(members)
                rows.append(dict(zip(EXPLAINED, (dataset, group, patches, n, *proportion(count, n)), strict=True)))
    return pd.DataFrame(rows, columns=EXPLAINED)


def proportion(count: int, n: int) -> tuple[float, float, float]:
    """A share with Clopper and Pearson's exact 95 % interval; NaN of nothing."""
    if not n:
        return np.nan, np.nan, np.nan
    interval = stats.binomtest(count, n).proportion_ci(0.95, method="exact")
    return count / n, float(interval.low), float(interval.high)


def beside_random(values: Array, random: Array, most: float = np.inf) -> dict[str, object]:
    """A quantity `[R, N]` of hard explanations beside random sets of the same size, with 95 % intervals over runs and images.

    The quantity lies in [0, `most`], and so does its mean: intervals end there. The test is Wilcoxon's, over images, of the means over runs.
    """
    row: dict[str, object] = {"n_runs": len(values), "n_images": values.shape[1]}
    if not values.size:
        return row | dict.fromkeys(NUMBERS, np.nan)
    ours, theirs = crossed(np.stack([values, random]))
    test = wilcoxon(values.mean(axis=0).round(9), random.mean(axis=0).round(9))
    (low, random_low), (high, random_high) = np.clip([[each.low, each.high] for each in (ours, theirs)], 0, most).T
    row |= {"mean": values.mean(), "low": low, "high": high}
    row |= {"random": random.mean(), "random_low": random_low, "random_high": random_high}
    return row | {"rank_biserial": test.effect_size, "p": test.p, "p_smallest": smallest_p(values.shape[1])}


def of_sufficient(values: Array, random: Array) -> dict[str, object]:
    """A quantity `[N]` of one run that only sufficient sets have (else NaN), with Student's 95 % interval over images.

    The quantity counts, so that its interval ends at 0. Hard explanations and random sets are sufficient on different
    images, so there is no test; `n_images` are those of the hard explanations.
    """
    row: dict[str, object] = {"n_runs": 1, "n_images": int(np.isfinite(values).sum())} | dict.fromkeys(NUMBERS, np.nan)
    for quantity, names in ((values, NUMBERS[:3]), (random, NUMBERS[3:6])):
        known = quantity[np.isfinite(quantity)]
        if len(known):
            row |= dict(zip(names, (known.mean(), *np.maximum(student(known), 0)), strict=True))
    return row


def mean_sizes(hard: NDArray[np.bool_], run: int, sufficient: NDArray[np.bool_] | None = None) -> dict[str, object]:
    """Mean cells of hard explanations `[R, N, n]`: `cells` over all runs, `cells_of_run` over the run measured.

    With `sufficient` `[N]` both are of the run measured alone, over these images.
    """
    sizes = hard.sum(axis=2)
    of_run = sizes[run] if sufficient is None else sizes[run, sufficient]
    cells = sizes if sufficient is None else of_run
    mean, mean_of_run = (values.mean() if values.size else np.nan for values in (cells, of_run))
    return {"cells": mean, "run": run, "cells_of_run": mean_of_run}
