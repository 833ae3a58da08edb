"""Tables of masks of classifiers with several classes an image."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from bla.base.specs import Backbone, Images
from bla.experiments.related_methods.multi_label.published import published
from bla.experiments.runs import corrected
from bla.inference.paired import smallest_p, standard_error, wilcoxon
from bla.metrics.masked_classes import MASKED
from bla.metrics.segmentation import SEGMENTATION

Array = NDArray[np.float64]
METRICS = (*SEGMENTATION, *MASKED)
MEANS = ["dataset", "method", "title", "metric", "better", "mean", "standard_error", "n", "n_runs"]
SPECIFICITY = ["dataset", "method", "title", "true_class", "mask_class", "value", "n", "published"]
TESTS = ["dataset", "metric", "method", "against", "n", "nonzero_pairs", "mean_difference", "rank_biserial", "p", "p_holm", "p_holm_smallest"]  # fmt: skip
OBJECTIVES = ["dataset", "method", "run", "objective", "objective_of_constant", "trained"]
CLASSES = ["dataset", "class", "n_train", "n_test", "average_precision", "standard_error", "n_runs"]


def definitions() -> pd.DataFrame:
    """What each metric means: a row per metric."""
    return pd.DataFrame([asdict(metric) for metric in METRICS])


def means(method: str, title: str, values: Mapping[str, Array], runs: int) -> pd.DataFrame:
    """The mean of each metric's values `[N]` over the images that have one; a row per metric."""
    rows = []
    for metric in METRICS:
        if metric.name not in values:
            continue
        known = values[metric.name][np.isfinite(values[metric.name])]
        row: dict[str, object] = {"method": method, "title": title, "metric": metric.name, "better": metric.better}
        row["mean"] = known.mean() if len(known) else np.nan
        row["standard_error"] = float(standard_error(known)) if len(known) > 1 else np.nan
        rows.append(row | {"n": len(known), "n_runs": runs})
    return pd.DataFrame(rows, columns=MEANS[1:])


def comparisons(values: Mapping[str, Mapping[str, Array]], methods: Sequence[str]) -> pd.DataFrame:
    """Each method against each control and each method before it: Wilcoxon signed-rank tests over images, two-sided.

    `values` are the values `[N]` of each method and control, averaged over runs, by metric. An image counts where both
    have a value; differences that are equal up to rounding are ties. `mean_difference` is method - against.
    """
    rows = []
    for metric in [metric.name for metric in METRICS if any(metric.name in found for found in values.values())]:
        for place, method in enumerate(methods):
            for other in [*(name for name in values if name not in methods), *methods[:place]]:
                difference = np.round(values[method][metric] - values[other][metric], 9)
                difference = difference[np.isfinite(difference)]
                if len(difference) < 2:
                    continue
                test = wilcoxon(difference, np.zeros(len(difference)))
                row: dict[str, object] = {"metric": metric, "method": method, "against": other, "n": len(difference)}
                row |= {"nonzero_pairs": test.nonzero_pairs, "mean_difference": difference.mean()}
                row |= {"rank_biserial": test.effect_size, "p": test.p, "p_smallest": smallest_p(len(difference))}
                rows.append(row)
    columns = [name for name in TESTS[1:] if not name.startswith("p_holm")]
    return corrected(pd.DataFrame(rows, columns=[*columns, "p_smallest"]), ["metric"])


def specificity_rows(
    matrix: Array,
    names: Sequence[str],
    method: str,
    title: str,
    counts: Sequence[int],
    images: Images,
    backbone: Backbone,
) -> list[dict[str, object]]:
    """A row per class and mask from a matrix `[K, 1 + K]`; the first column is without a mask, `mask_class` none.

    `counts` are the images that show each class.
    """
    rows = []
    for i, true in enumerate(names):
        for j, mask in enumerate([None, *names]):
            row: dict[str, object] = {
                "method": method,
                "title": title,
                "true_class": true,
                "mask_class": mask or "none",
            }
            row |= {
                "value": matrix[i, j],
                "n": counts[i],
                "published": published(images, backbone, method, true, mask, counts[i]),
            }
            rows.append(row)
    return rows


def precision_by_class(scores: Array, labels: NDArray[np.bool_], names: Sequence[str]) -> pd.DataFrame:
    """The average precision of each class over runs, from scores `[R, N, K]` and labels `[N, K]`; NaN without such an image."""
    rows = []
    for k, name in enumerate(names):
        some = labels[:, k].any()
        values = np.array([average_precision_score(labels[:, k], run[:, k]) if some else np.nan for run in scores])
        error = float(standard_error(values)) if len(values) > 1 else np.nan
        row = {"class": name, "n_test": int(labels[:, k].sum()), "average_precision": values.mean()}
        rows.append(row | {"standard_error": error, "n_runs": len(scores)})
    return pd.DataFrame(rows)
