"""Prepared images in data/images/DATASET/: an array per split, labels, masks, classes and manifest."""

from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bla.datasets import SPLITS, Labels, class_of_each, spread_over_classes
from pipeline.artifacts.arrays import load_array
from pipeline.artifacts.tables import load_classes, load_table

if TYPE_CHECKING:
    pass

IMAGES = Path("data/images")
CAPTION = 16
"""Characters per line of a caption."""


def load_images(dataset: str, split: str) -> NDArray[np.uint8]:
    """Images uint8 `[N, H, W, 3]`, memory-mapped."""
    return load_array(IMAGES / dataset / f"{split}_images.npy")


def load_labels(dataset: str, split: str) -> Labels:
    """Labels int64 `[N]`, or multi-hot bool `[N, K]`, memory-mapped."""
    return load_array(IMAGES / dataset / f"{split}_labels.npy")


def load_masks(dataset: str, split: str) -> NDArray[np.bool_] | None:
    """Masks bool `[N, S, H, W]`, one for each of the S `mask_names`, memory-mapped; None if the dataset has none."""
    path = IMAGES / dataset / f"{split}_masks.npy"
    return load_array(path) if path.exists() else None


def mask_names(dataset: str) -> list[str]:
    """What each mask shows: the object, a class, or a part."""
    return [str(name) for name in load_table(IMAGES / dataset / "masks.csv", dtype=str, keep_default_na=False)["name"]]


def object_masks(
    dataset: str, split: str, numbers: NDArray[np.int64], targets: NDArray[np.int64]
) -> NDArray[np.bool_] | None:
    """A mask bool `[M, H, W]` for each pair (image, class); None if the dataset has no masks.

    It is the mask with the name of the class or, if there is none, the union of the image's masks.
    """
    masks = load_masks(dataset, split)
    if masks is None:
        return None
    places = {name: place for place, name in enumerate(mask_names(dataset))}
    classes = class_names(dataset)
    chosen = []
    for number, target in zip(numbers, targets, strict=True):
        place = places.get(classes[target])
        chosen.append(masks[number].any(axis=0) if place is None else masks[number, place])
    return np.array(chosen)


def prepared_files(dataset: str) -> list[Path]:
    """The files of images, labels and masks of both splits, for cache keys."""
    paths = [IMAGES / dataset / f"{split}_{what}.npy" for split in SPLITS for what in ("images", "labels", "masks")]
    return [path for path in paths if path.exists()]


def class_names(dataset: str) -> list[str]:
    """The classes by label."""
    return load_classes(dataset)


def captions(dataset: str) -> list[str]:
    """The classes by label, as captions of pictures: at most two short lines.

    A name with letters that the pictures' font lacks becomes `class LABEL`; classes.csv has the name.
    """
    lines = [fill(n.replace("_", " "), CAPTION, max_lines=2, placeholder=" …") for n in drawable_names(dataset)]
    return [line.replace("$", r"\$") for line in lines]


def drawable_names(dataset: str) -> list[str]:
    """The classes by label; `class LABEL` for a name with letters that the pictures' font lacks."""
    from bla.plotting.sheet import can_draw

    return [name if can_draw(name) else f"class {label}" for label, name in enumerate(class_names(dataset))]


def chosen_images(dataset: str, count: int) -> tuple[list[int], NDArray[np.uint8], list[str]]:
    """Some test images, spread evenly over the classes: numbers, pixels `[M, H, W, 3]`, captions."""
    images, labels, names = load_images(dataset, "test"), load_labels(dataset, "test"), captions(dataset)
    numbers = spread_over_classes(labels, count).tolist()
    classes = class_of_each(labels)
    return numbers, images[numbers], [names[int(classes[n])] for n in numbers]


def some_images(dataset: str, split: str, at_most: int | None) -> tuple[NDArray[np.int64], NDArray[np.uint8], Labels]:
    """Numbers, pixels and labels of the images of a split; of `at_most` that many, spread over the classes."""
    images, labels = load_images(dataset, split), load_labels(dataset, split)
    if at_most is None or at_most >= len(labels):
        return np.arange(len(labels)), images, labels
    chosen = np.sort(spread_over_classes(labels, at_most))
    return chosen, images[chosen], np.asarray(labels[chosen])  # type: ignore[return-value]
