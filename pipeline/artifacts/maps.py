"""Maps of every method on some test images: LIME's of all runs in data/lime/, all methods' in data/maps/."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bla.base.errors import BlaError
from bla.runtime.seeds import derive_seed
from pipeline.artifacts.arrays import load_arrays

LIME_MAPS = Path("data/lime")
MAPS = Path("data/maps")
TABLE_TWO = Path("data/table2")
FAITHFULNESS = Path("data/faithfulness")


def load_maps(path: Path, stage: str, dataset: str, numbers: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    """What an earlier stage wrote about the images of these numbers; BlaError if it was about others."""
    remedy = f"dvc repro {stage}@{dataset}"
    arrays = load_arrays(path, remedy)
    if not np.array_equal(arrays["images"], numbers):
        raise BlaError(f"{path}: of other images than `faithfulness` asks for; run {remedy}")
    return arrays


def lime_seeds(seed: int, dataset: str, name: str, patterns_of: str, numbers: NDArray[np.int64]) -> list[int]:
    """The seed of each image's patterns: one for all where the dataset shares them."""
    whose = ["dataset"] * len(numbers) if patterns_of == "dataset" else numbers.tolist()
    return [derive_seed(seed, dataset, "lime", name, who) for who in whose]
