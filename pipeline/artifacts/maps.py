"""Maps of every method on some test images: LIME's of all runs in data/lime/, all methods' in data/maps/."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from bla.base.errors import BlaError
from bla.networks.patches import Grid, cell_means
from bla.runtime.seeds import derive_seed
from pipeline.artifacts.arrays import load_arrays
from pipeline.artifacts.tables import save_table

LIME_MAPS = Path("data/lime")
MAPS = Path("data/maps")
TABLE_TWO = Path("data/table2")
SECONDS = Path("data/seconds")
FAITHFULNESS = Path("data/faithfulness")


def save_training_seconds(dataset: str, name: str, seconds: float, runs: int) -> None:
    """Write how long the training of a variant or learned method took, all runs together."""
    save_table(SECONDS / dataset / f"{name}.csv", pd.DataFrame({"seconds": [seconds], "runs": [runs]}))


def load_maps(path: Path, stage: str, dataset: str, numbers: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    """The output of an earlier stage for these images; BlaError if it is for other images, or damaged.

    A map that is all NaN was not made; one with some NaN is damaged.
    """
    remedy = f"dvc repro {stage}@{dataset}"
    arrays = load_arrays(path, remedy)
    if not np.array_equal(arrays["images"], numbers):
        raise BlaError(f"{path}: made for other images than `faithfulness` selects; run {remedy}")
    for name, values in arrays.items():
        if values.dtype.kind == "f":
            missing = np.isnan(values).reshape(-1, math.prod(values.shape[-2 if name.startswith("maps/") else -1 :]))
            if np.isinf(values).any() or (missing.any(axis=1) != missing.all(axis=1)).any():
                raise BlaError(f"{path}: {name}: NaN or infinite numbers within a map; delete it and run {remedy}")
    return arrays


def own_maps(arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float64]]:
    """The maps of all methods at their own resolution, `[M, h, w]`, from the output of the stage `maps`."""
    return {key.removeprefix("maps/"): values for key, values in arrays.items() if key.startswith("maps/")}


def cell_maps(arrays: Mapping[str, NDArray[Any]], grid: Grid) -> dict[str, NDArray[np.float64]]:
    """The maps of all methods as means over the cells, `[M, n]`, from the output of the stage `maps`."""
    maps = own_maps(arrays).items()
    return {name: cell_means(torch.from_numpy(values), grid).flatten(1).numpy() for name, values in maps}


def load_sets(dataset: str) -> dict[str, list[list[list[int]]]]:
    """The sets of cells of each method that returns sets: for each image its sets, best first."""
    sets: dict[str, list[list[list[int]]]] = json.loads((MAPS / f"{dataset}.json").read_text())
    return sets


def lime_seeds(seed: int, dataset: str, name: str, patterns_of: str, numbers: NDArray[np.int64]) -> list[int]:
    """The seed of each image's patterns; the same for all images if `patterns_of` is "dataset"."""
    owners = ["dataset"] * len(numbers) if patterns_of == "dataset" else numbers.tolist()
    return [derive_seed(seed, dataset, "lime", name, owner) for owner in owners]
