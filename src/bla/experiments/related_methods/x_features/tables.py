"""Tables of XNN's x-features, by class: faithfulness, orthogonality, dead x-features and contributions."""

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from bla.base.errors import BlaError
from bla.explainers.x_features import pull_away, r_squared
from bla.inference.paired import standard_error

FAITHFUL = 0.9
"""The smallest R² on test logits at which contributions are shown."""
CONSTANT = 1e-6
"""Logits vary if their standard deviation is larger than this share of the largest one."""
CLASSES = ["dataset", "run", "class", "n_images", "n_x_features", "r_squared", "faithful", "orthogonality", "n_dead", "epochs", "converged", "r_squared_held_out"]  # fmt: skip
CONTRIBUTIONS = ["dataset", "run", "class", "x_feature", "n_images", "contribution", "standard_error"]


def class_row(x: Tensor, weights: Tensor, bias: Tensor, logits: Tensor) -> dict[str, object]:
    """Of one class on N test images: x-features in use, R², whether it is faithful, orthogonality, and dead x-features.

    `x` `[N, X]`, `weights` `[X]`, 0 for an x-feature that is not in use; `logits` `[N]`. Orthogonality is 1 minus the
    mean squared cosine between the contributions of two x-features in use over the images; NaN with fewer than two that
    are not dead. A dead x-feature is 0 on every image. Where the logits do not vary, R² is NaN; a class without an
    x-feature in use has the R² of a constant, at most 0. Neither is faithful.
    BlaError if a logit is not finite.
    """
    if not logits.isfinite().all():
        raise BlaError("the classifier's logits of the test images are not finite; check its weights")
    contributions = (x * weights).double()
    dead = (x == 0).all(dim=0)
    live = (weights != 0) & ~dead
    constant = logits.double().std(unbiased=False) <= CONSTANT * logits.abs().max()
    reached = np.nan if constant else float(r_squared(contributions.sum(dim=1) + bias.double(), logits.double()))
    apart = 1 - float(pull_away(contributions.T)) if live.sum() > 1 else np.nan
    row: dict[str, object] = {"n_images": len(x), "n_x_features": int((weights != 0).sum()), "r_squared": reached}
    return row | {"faithful": reached >= FAITHFUL, "orthogonality": apart, "n_dead": int(dead.sum())}


def contribution_rows(x: Tensor, weights: Tensor, members: NDArray[np.bool_]) -> list[dict[str, object]]:
    """The mean contribution to the logit of each x-feature in use, over the images `members` `[N]`, with its standard error.

    The x-feature with the largest mean comes first; without two images there is no standard error, without one no mean.
    """
    contributions = (x * weights)[torch.from_numpy(members)].double().numpy()
    rows = []
    for number in np.flatnonzero(weights.numpy()):
        values = contributions[:, number]
        mean = values.mean() if len(values) else np.nan
        error = float(standard_error(values)) if len(values) > 1 else np.nan
        rows.append({"x_feature": int(number), "n_images": len(values), "contribution": mean, "standard_error": error})
    return sorted(rows, key=lambda row: -np.nan_to_num(row["contribution"]))


def tables(classes: list[dict[str, object]], contributions: list[dict[str, object]]) -> dict[str, pd.DataFrame]:
    """The tables by file suffix: a row per class, and a row per x-feature in use."""
    return {
        "": pd.DataFrame(classes, columns=CLASSES),
        "_contributions": pd.DataFrame(contributions, columns=CONTRIBUTIONS),
    }
