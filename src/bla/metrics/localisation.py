"""Does an explanation lie on the object? Of images with a mask of it.

`coverage` `[B, n]` is the share of each cell that the mask covers, so that everything is
counted in pixels although explanations have cells. Images with an empty mask have no score: NaN.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from bla.networks.patches import Grid, cell_means

Array = NDArray[np.float64]

AT_ONCE = 256
"""Masks whose coverage is computed at once."""
TOLERANCE = 15 / 224
"""Of the pointing game, as a share of the image's side (Fong et al. 2019)."""


def coverage(masks: Tensor, grid: Grid) -> Array:
    """The share `[B, n]` of each cell that the masks, bool `[B, H, W]`, cover."""
    parts = [cell_means(part.double(), grid).flatten(1) for part in masks.split(AT_ONCE)]
    return np.asarray(torch.cat(parts).numpy())


def pointing_game(maps: Array, masks: NDArray[np.bool_]) -> Array:
    """1 if the centre of the largest cell lies less than `TOLERANCE` from the mask, else 0; with several the expected hit.

    `maps` is `[B, h, w]`, `masks` `[B, H, W]` (Zhang et al. 2018).
    """
    hits = np.full(len(maps), np.nan)
    for number, (values, mask) in enumerate(zip(maps, masks, strict=True)):
        if mask.any():
            distance = distance_transform_edt(~mask)
            rows, columns = np.nonzero(values == values.max())
            centres = [((at + 0.5) * side / cells).astype(int) for at, side, cells in zip((rows, columns), mask.shape, values.shape, strict=True)]  # fmt: skip
            hits[number] = np.mean(distance[centres[0], centres[1]] < TOLERANCE * mask.shape[0])
    return hits


def overlap(selected: NDArray[np.bool_], coverage: Array) -> tuple[Array, Array, Array]:
    """Intersection over union, precision and recall `[B, ...]` of selected cells `[B, ..., n]`."""
    cover = np.expand_dims(coverage, tuple(range(1, selected.ndim - 1)))
    both, object_size = (selected * cover).sum(axis=-1), cover.sum(axis=-1)
    size = selected.sum(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        iou, recall = both / (size + object_size - both), both / object_size
        precision = np.where(object_size > 0, both / size, np.nan)
    return np.where(object_size > 0, iou, np.nan), precision, recall


def weight_inside(maps: Array, coverage: Array) -> Array:
    """The share of the positive weight of maps `[B, n]` on the object; NaN where a map has none (Wang et al. 2020)."""
    weights = np.maximum(maps, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        inside = (weights * coverage).sum(axis=1) / weights.sum(axis=1)
    return np.where(coverage.sum(axis=1) > 0, inside, np.nan)
