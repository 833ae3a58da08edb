"""The share of each cell that the object covers, from the masks in data/images/DATASET/."""

import numpy as np
import torch
from numpy.typing import NDArray

from bla.metrics.localisation import coverage
from bla.networks.patches import Grid
from pipeline.artifacts.images import load_masks


def load_coverage(dataset: str, split: str, grid: Grid) -> NDArray[np.float64] | None:
    """The share `[N, n]` of each cell that the union of an image's masks covers; None if the dataset has no masks."""
    masks = load_masks(dataset, split)
    return None if masks is None else coverage(torch.from_numpy(masks.any(axis=1)), grid)
