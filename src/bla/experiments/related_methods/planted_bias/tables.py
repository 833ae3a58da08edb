"""The table of the planted bias: whether the classifier uses the cue, and how much of each map lies on it."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bla.experiments.runs import corrected
from bla.inference.paired import smallest_p, standard_error, wilcoxon

Array = NDArray[np.float64]
SHARE, MASS = "share predicted as the cue's class", "mass on the cue"
COLUMNS = [
    *("dataset", "method", "title", "measure", "against", "n_runs", "n_images", "value", "standard_error"),
    *("deviation_runs", "other", "other_standard_error", "difference", "rank_biserial", "p", "p_holm", "p_holm_smallest"),
]  # fmt: skip


def comparison(measure: str, against: str, values: Array, others: Array) -> dict[str, object]:
    """Values `[R, N]` of R runs and N images against others `[R', N]`, averaged over runs within each image.

    Means, standard errors and Wilcoxon's signed-rank test are over the images with a value in both; `deviation_runs` is the
    standard deviation over the runs' means. An image has no value if it is NaN in all runs.
    """
    both = np.isfinite(values).any(axis=0) & np.isfinite(others).any(axis=0)
    first, second = (np.nanmean(part[:, both], axis=0) for part in (values, others))
    difference = (first - second).round(9)
    row: dict[str, object] = {
        "measure": measure,
        "against": against,
        "n_runs": len(values),
        "n_images": int(both.sum()),
    }
    if both.sum() < 2:
        return row | dict.fromkeys(["value", "p", "p_smallest"], np.nan)
    test = wilcoxon(difference, np.zeros(len(difference)))
    row |= {"value": first.mean(), "standard_error": float(standard_error(first))}
    row |= {"deviation_runs": float(np.nanmean(values[:, both], axis=1).std(ddof=1)) if len(values) > 1 else np.nan}
    row |= {"other": second.mean(), "other_standard_error": float(standard_error(second))}
    row |= {"difference": difference.mean(), "rank_biserial": test.effect_size}
    return row | {"p": test.p, "p_smallest": smallest_p(len(difference))}


def use_of_the_cue(predicted: Mapping[str, NDArray[np.bool_]]) -> list[dict[str, object]]:
    """How often images of other classes are predicted as the cue's class, by the classifier trained with the cue.

    `predicted` bool `[R, N]` holds `biased` (trained with the cue, image with the cue), `without_cue` (the same classifier,
    image without) and `unbiased` (trained without the cue, image with it).
    """
    values = {name: of_images.astype(np.float64) for name, of_images in predicted.items()}
    return [
        comparison(SHARE, "the same images without the cue", values["biased"], values["without_cue"]),
        comparison(SHARE, "trained without the cue", values["biased"], values["unbiased"]),
    ]


def mass_on_the_cue(biased: Array, unbiased: Array, area: Array) -> list[dict[str, object]]:
    """The masses `[R, N]` of a method on both classifiers, and the cue's share of each image's area `[N]`, compared."""
    return [
        comparison(MASS, "share of area", biased, area[None]),
        comparison(MASS, "trained without the cue", biased, unbiased),
    ]


def bias_table(rows: list[dict[str, object]]) -> pd.DataFrame:
    """All comparisons; those of a dataset are one family."""
    table = pd.DataFrame(rows, columns=[name for name in COLUMNS if not name.startswith("p_holm")] + ["p_smallest"])
    return corrected(table, ["dataset"])[COLUMNS]
