"""Truth by intervention: does a map give weight to the parts whose absence changes the classifier's score?

The effect of a part is the score of the predicted class minus its score on the same scene painted without the part.
After the single-deletion protocol of FunnyBirds (Hesse et al. 2023).

    effects = effects_of(with_parts, without_parts, targets)      # [M, S]
    sums, means = part_weights(maps, masks)                       # [M, S] each
    agreement(sums, effects, masks.any(axis=(2, 3)))              # [M]
"""

import numpy as np
import torch
from numpy.typing import NDArray

from bla.metrics.localisation import coverage
from bla.metrics.rank_correlation import spearman

Array = NDArray[np.float64]


def effects_of(whole: Array, without: Array, targets: NDArray[np.int64]) -> Array:
    """The effect `[M, S]` of S parts on the score of each image's target class.

    `whole` `[M, K]` are the scores of the images, `without` `[S, M, K]` those without each part.
    """
    rows = np.arange(len(targets))
    return np.asarray((whole[rows, targets] - without[:, rows, targets]).T)


def part_weights(maps: Array, masks: NDArray[np.bool_]) -> tuple[Array, Array]:
    """Sum and mean of maps `[M, h, w]` over the pixels of parts `[M, S, H, W]`, `[M, S]` each.

    A value of the map holds for all pixels of its cell; the sum is in cells. The mean is NaN for an empty part.
    """
    grid, (images, parts) = maps.shape[1:], masks.shape[:2]
    pixels = torch.from_numpy(masks).flatten(0, 1)
    covered = coverage(pixels, (grid[0], grid[1])).reshape(images, parts, -1)  # of each cell, the share
    sums = (covered * maps.reshape(images, 1, -1)).sum(axis=2)
    with np.errstate(invalid="ignore", divide="ignore"):
        return sums, sums / covered.sum(axis=2)


def agreement(weights: Array, effects: Array, visible: NDArray[np.bool_], constant_maps: str = "zero") -> Array:
    """Spearman's correlation `[M]` of weights and effects over the visible parts, `[M, S]` each.

    NaN where fewer than three parts are visible or the map was not made (NaN); where all weights or effects are equal,
    0, or NaN with `constant_maps` "leave_out".
    """
    result = np.full(len(weights), np.nan)
    for row, (weight, effect, seen) in enumerate(zip(weights, effects, visible, strict=True)):
        if seen.sum() >= 3 and np.isfinite(weight[seen]).all():
            rho = spearman(weight[seen], effect[seen])
            result[row] = 0 if np.isnan(rho) and constant_maps == "zero" else rho
    return result


def weight_on_part(maps: Array, mask: NDArray[np.bool_]) -> Array:
    """The share `[M]` of the positive weight of maps `[M, h, w]` that lies on a part `[M, H, W]`; NaN where it is hidden."""
    positive = np.maximum(maps, 0)
    inside = part_weights(positive, mask[:, None])[0][:, 0]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(mask.any(axis=(1, 2)), inside / positive.sum(axis=(1, 2)), np.nan)
