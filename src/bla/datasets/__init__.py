"""One module per dataset: where its images come from, their labels, classes, split and, where there are any, masks and boxes.

A module of image files has `find(spec, folder) -> Listing`, which downloads and unpacks what is missing in `folder` and
opens no image (`bla.datasets.image_files.read_images` does). A module that draws or decodes its images itself returns a `Split`.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bla.base.specs import MaskFormat, height_and_width

SplitName = Literal["train", "test"]
SPLITS: tuple[SplitName, SplitName] = ("train", "test")

OBJECT: tuple[str, ...] = ("object",)
"""The name of the mask where a dataset has one per image."""
Labels = NDArray[np.int64] | NDArray[np.bool_]
"""The class of each image `[N]`, or multi-hot, all classes that it shows, `[N, K]`."""

Box = tuple[float, float, float, float]
"""Left, top, right and bottom edge of an object, in pixels of the image file."""


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An image file by its name relative to the dataset's folder, with its label and what else is known of it.

    `label` is its class, or a tuple of all classes that it shows. `masks` are files, one for each of the listing's `mask_names`;
    None where the image has no such object.
    """

    name: str
    label: int | tuple[int, ...]
    masks: tuple[str | None, ...] = ()
    boxes: tuple[Box, ...] = ()


@dataclass(frozen=True)
class Listing:
    """The image files of a dataset in a fixed order, none of them opened.

    `masks` says how mask files are to be read, `mask_names` what each of an image's masks shows: a class, a part, or the
    object; `turned` whether an image is to be turned as its EXIF says: official boxes
    and masks belong to the pixels as they are stored, and TensorFlow, which the authors used, knows no EXIF.
    """

    folder: Path
    classes: list[str]
    splits: dict[SplitName, list[ImageFile]]
    masks: MaskFormat | None = None
    turned: bool = False
    mask_names: tuple[str, ...] = OBJECT


@dataclass(frozen=True)
class Split:
    """Some images of a split, in a fixed order.

    `images` is uint8 `[N, H, W, 3]`; `labels` int64 `[N]`, or multi-hot bool `[N, K]`; `masks` is bool `[N, S, H, W]`, true on
    what each of the S `mask_names` says, or None where the dataset has no masks. `shapes` int32 `[N, 2]` is the height and width of each image
    before it was resized.

    `sources` says where each image comes from: a file relative to the dataset's folder, or the number of the handwritten
    digit; `sha256` is the hash of that file, or of the pixels where there is none; `treatment` says what made the file
    plain upright RGB, and is empty for most.
    """

    images: NDArray[np.uint8]
    labels: Labels
    masks: NDArray[np.bool_] | None
    shapes: NDArray[np.int32]
    sources: list[str]
    sha256: list[str]
    treatment: list[str]
    mask_names: tuple[str, ...] = OBJECT


def drawn(
    images: NDArray[np.uint8], labels: NDArray[np.int64], masks: NDArray[np.bool_] | None, sources: list[str]
) -> Split:
    """A split whose images come from no files; `masks` `[N, H, W]` show the object."""
    hashes = [hashlib.sha256(image.tobytes()).hexdigest() for image in images]
    shapes = np.full((len(images), 2), images.shape[1:3], np.int32)
    return Split(images, labels, None if masks is None else masks[:, None], shapes, sources, hashes, [""] * len(images))


def mixed(files: Sequence[ImageFile]) -> list[ImageFile]:
    """The files in the order of the SHA-256 of their names, so that neighbours are a random sample of all classes."""
    return sorted(files, key=lambda file: hashlib.sha256(file.name.encode()).digest())


def scale_boxes(
    files: Sequence[ImageFile], shapes: NDArray[np.int32], size: int | tuple[int, int]
) -> NDArray[np.float64]:
    """The objects' boxes in pixels of images of this size (a side, or height and width): `[M, 5]`, the number of the image, left, top, right, bottom."""
    new_height, new_width = height_and_width(size)
    rows = [
        (
            number,
            left * new_width / width,
            top * new_height / height,
            right * new_width / width,
            bottom * new_height / height,
        )
        for number, (file, (height, width)) in enumerate(zip(files, shapes, strict=True))
        for left, top, right, bottom in file.boxes
    ]
    return np.array(rows, np.float64).reshape(-1, 5)


def label_array(labels: Sequence[int | tuple[int, ...]], classes: int) -> Labels:
    """The labels of `ImageFile`s as an array: int64 `[N]`, or multi-hot bool `[N, K]` where images have tuples."""
    if not any(isinstance(label, tuple) for label in labels):
        return np.array(labels, np.int64)
    hot = np.zeros((len(labels), classes), np.bool_)
    for row, label in zip(hot, labels, strict=True):
        row[list(label) if isinstance(label, tuple) else label] = True
    return hot


def class_of_each(labels: Labels) -> NDArray[np.int64]:
    """One class per image `[N]`: its label or, of multi-hot labels, the rarest that it shows; -1 for an image without any.

    So an image and its class form a pair that is explained, each image once, and rare classes are explained too.
    """
    if labels.ndim == 1:
        return np.asarray(labels, np.int64)
    counts = np.where(labels, labels.sum(axis=0), len(labels) + 1)
    return np.where(labels.any(axis=1), counts.argmin(axis=1), -1).astype(np.int64)


def spread_over_classes(labels: Labels, count: int) -> NDArray[np.int64]:
    """The numbers of `count` images, spread evenly over the classes (`class_of_each`) and, within a class, over its images.

    Images without a class are left out, so that there may be fewer.
    """
    classes = class_of_each(labels)
    by_class = np.argsort(classes, kind="stable").astype(np.int64)[(classes < 0).sum() :]
    count = min(count, len(by_class)) if labels.ndim > 1 else count
    return by_class[(2 * np.arange(count) + 1) * len(by_class) // (2 * count)]


def split_by_name(names: Sequence[str], test_share: float) -> list[SplitName]:
    """A split of files that come without one: in the order of the SHA-256 of their names, the first are for testing.

    Of 23,262 names with a test share of 0.2 that is the paper's 18,609 to 4,653, if not the same images.
    """
    order = sorted(range(len(names)), key=lambda i: hashlib.sha256(names[i].encode()).digest())
    test = set(order[: len(names) - int(len(names) * (1 - test_share))])
    return ["test" if i in test else "train" for i in range(len(names))]
