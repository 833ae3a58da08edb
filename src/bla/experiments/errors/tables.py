"""How much a method's map depends on the class that it explains, on images that the classifier gets wrong and right."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bla.inference.paired import standard_error
from bla.metrics.rank_correlation import spearman

Array = NDArray[np.float64]
COLUMNS = ["dataset", "method", "title", "images", "n", "n_constant", "correlation", "standard_error"]


def two_classes(scores: Array, labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """The classes `[2, N]` to compare: the predicted one and the true one; where both are the same, the second most probable.

    `scores` are `[N, K]`.
    """
    order = np.argsort(-scores, axis=1, kind="stable")[:, :2].T
    return np.stack([order[0], np.where(order[0] == labels, order[1], labels)])


def class_dependence(maps: Mapping[str, Array], wrong: NDArray[np.bool_]) -> pd.DataFrame:
    """The mean rank correlation of the maps `[2, N, n]` of two classes, by method, on wrong and on right images.

    1: the map does not depend on the class. Images with a constant map have no correlation and are counted.
    """
    rows = []
    for method, (first, second) in maps.items():
        for images, chosen in (("wrong", wrong), ("right", ~wrong)):
            values = spearman(first[chosen], second[chosen])
            known = values[np.isfinite(values)]
            row: dict[str, object] = {"method": method, "images": images, "n": len(known), "n_constant": len(values) - len(known)}  # fmt: skip
            row["correlation"] = known.mean() if len(known) else np.nan
            row["standard_error"] = float(standard_error(known)) if len(known) > 1 else np.nan
            rows.append(row)
    return pd.DataFrame(rows, columns=[name for name in COLUMNS if name not in ("dataset", "title")])
