"""Prepared images: one array a split in data/images/DATASET/, their labels, masks, classes and manifest."""

from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bla.datasets import SPLITS, spread_over_classes
from pipeline.artifacts.arrays import load_array
from pipeline.artifacts.tables import load_table

if TYPE_CHECKING:
    from torch import Tensor

IMAGES = Path("data/images")
CAPTION = 16
"""Characters that are as wide as a small picture."""


def load_images(dataset: str, split: str) -> NDArray[np.uint8]:
    """Images uint8 `[N, H, W, 3]`, memory-mapped."""
    return load_array(IMAGES / dataset / f"{split}_images.npy")


def load_labels(dataset: str, split: str) -> NDArray[np.int64]:
    """Labels int64 `[N]`, memory-mapped."""
    return load_array(IMAGES / dataset / f"{split}_labels.npy")


def load_masks(dataset: str, split: str) -> NDArray[np.bool_] | None:
    """Masks of the object, bool `[N, H, W]`, memory-mapped; None where the dataset has none."""
    path = IMAGES / dataset / f"{split}_masks.npy"
    return load_array(path) if path.exists() else None


def prepared_files(dataset: str) -> list[Path]:
    """Images, labels and masks of both splits, whose content decides what is computed from them."""
    paths = [IMAGES / dataset / f"{split}_{what}.npy" for split in SPLITS for what in ("images", "labels", "masks")]
    return [path for path in paths if path.exists()]


def class_names(dataset: str) -> list[str]:
    """The classes by label."""
    names = load_table(IMAGES / dataset / "classes.csv", dtype=str, keep_default_na=False)["name"]
    return [str(name) for name in names]


def captions(dataset: str) -> list[str]:
    """The classes by label, as captions of a picture: two short lines at most."""
    lines = [fill(n.replace("_", " "), CAPTION, max_lines=2, placeholder=" …") for n in class_names(dataset)]
    return [line.replace("$", r"\$") for line in lines]


def chosen_images(dataset: str, count: int) -> tuple[list[int], NDArray[np.uint8], list[str]]:
    """Some test images, spread evenly over the classes: numbers, pixels `[M, H, W, 3]`, captions."""
    images, labels, names = load_images(dataset, "test"), load_labels(dataset, "test"), captions(dataset)
    numbers = spread_over_classes(labels, count).tolist()
    return numbers, images[numbers], [names[int(labels[n])] for n in numbers]


def training_images(dataset: str, count: int) -> "tuple[NDArray[np.int64], Tensor]":
    """The numbers and pixels of so many training images, spread over the classes."""
    import torch

    labels = load_labels(dataset, "train")
    chosen = np.sort(spread_over_classes(labels, min(count, len(labels))))
    return chosen, torch.from_numpy(load_images(dataset, "train")[chosen])
