"""How much of each cell the object covers, from the masks in data/images/DATASET/."""

import numpy as np
import torch
from numpy.typing import NDArray

from bla.metrics.localisation import coverage
from pipeline.artifacts.images import load_masks


def load_coverage(dataset: str, split: str, cells: int) -> NDArray[np.float64] | None:
    """The share `[N, n]` of each of n cells that the object covers; None where there are no masks."""
    masks = load_masks(dataset, split)
    return None if masks is None else coverage(torch.from_numpy(np.array(masks)), round(cells**0.5))
