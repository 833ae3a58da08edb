"""Does an explanation lie on the object? For images with an object mask.

`coverage` `[B, n]` is the share of each cell that the mask covers, so that areas are counted in pixels although
explanations consist of cells. The score of an image with an empty mask is NaN.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from bla.base.rounding import joined
from bla.networks.patches import Grid, cell_means

Array = NDArray[np.float64]

AT_ONCE = 256
"""Masks per batch."""
TOLERANCE = 15 / 224
"""The pointing game's tolerance, as a share of the image's side (Fong et al. 2019)."""


def coverage(masks: Tensor, grid: Grid) -> Array:
    """The share `[B, n]` of each cell that the masks, bool `[B, H, W]`, cover."""
    parts = [cell_means(part.double(), grid).flatten(1) for part in masks.split(AT_ONCE)]
    return np.asarray(torch.cat(parts).numpy())


def pointing_game(maps: Array, masks: NDArray[np.bool_]) -> Array:
    """1 if the centre of the largest cell is closer than `TOLERANCE` to the mask, else 0; the mean over tied cells.

    `maps` is `[B, h, w]`, `masks` `[B, H, W]` (Zhang et al. 2018).
    """
    hits = np.full(len(maps), np.nan)
    equal = joined(maps.reshape(len(maps), -1)).reshape(maps.shape)
    for number, (values, mask) in enumerate(zip(equal, masks, strict=True)):
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
    """The share of a map's positive weight that lies on the object; NaN without positive weight (Wang et al. 2020)."""
    weights = np.maximum(maps, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        inside = (weights * coverage).sum(axis=1) / weights.sum(axis=1)
    return np.where(coverage.sum(axis=1) > 0, inside, np.nan)
