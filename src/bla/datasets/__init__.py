"""One module per dataset: source, labels, classes and split of its images, and masks and boxes if it has them.

A dataset of image files has `find(spec, folder) -> Listing`, which downloads and unpacks what is missing in `folder`;
images are opened later, by `bla.datasets.image_files.read_images`. A dataset that is drawn or decoded here returns a
`Split`.
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
"""The mask's name in datasets with one mask per image."""
Labels = NDArray[np.int64] | NDArray[np.bool_]
"""The class of each image `[N]`, or all its classes as multi-hot rows `[N, K]`."""

Box = tuple[float, float, float, float]
"""Left, top, right and bottom edge of an object, in pixels of the image file."""


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An image file, by its name relative to the dataset's folder, with label, masks and box.

    `label` is its class, or a tuple of all its classes. `masks` are files in the order of the listing's `mask_names`,
    None where the image has no such object.
    """

    name: str
    label: int | tuple[int, ...]
    masks: tuple[str | None, ...] = ()
    boxes: tuple[Box, ...] = ()


@dataclass(frozen=True)
class Listing:
    """The image files of a dataset in a fixed order, not yet opened.

    `masks` is the format of mask files, `mask_names` what each mask of an image shows: a class, a part, or the object.
    `turned`: whether images are rotated by their EXIF tag. Official boxes and masks belong to the unrotated pixels, and
    TensorFlow, which the authors used, ignores EXIF.
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

    `images` is uint8 `[N, H, W, 3]`; `labels` int64 `[N]`, or multi-hot bool `[N, K]`; `masks` bool `[N, S, H, W]`, one
    for each of the S `mask_names`, or None if the dataset has no masks. `shapes` int32 `[N, 2]` are heights and widths
    before resizing.

    `sources`: the file of each image, relative to the dataset's folder, or the number of its handwritten digit.
    `sha256`: the hash of the file, or of the pixels if there is no file. `treatment`: how the file was converted to
    upright RGB; mostly empty.
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
    images: NDArray[np.uint8],
    labels: Labels,
    masks: NDArray[np.bool_] | None,
    sources: list[str],
    mask_names: tuple[str, ...] = OBJECT,
) -> Split:
    """A split of images that have no files; `masks` `[N, S, H, W]` show what `mask_names` says."""
    hashes = [hashlib.sha256(image.tobytes()).hexdigest() for image in images]
    shapes = np.full((len(images), 2), images.shape[1:3], np.int32)
    return Split(images, labels, masks, shapes, sources, hashes, [""] * len(images), mask_names)


def mixed(files: Sequence[ImageFile]) -> list[ImageFile]:
    """The files ordered by the SHA-256 of their names, so that neighbours are a random sample of all classes."""
    return sorted(files, key=lambda file: hashlib.sha256(file.name.encode()).digest())


def scale_boxes(
    files: Sequence[ImageFile], shapes: NDArray[np.int32], size: int | tuple[int, int]
) -> NDArray[np.float64]:
    """All boxes in pixels of images resized to `size` (a side, or height and width): `[M, 5]`, image number, left, top, right, bottom."""
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
    """One class per image `[N]`: its label, or the rarest of its multi-hot labels; -1 if it has none.

    Explanations are made of pairs (image, class): each image once, rare classes included.
    """
    if labels.ndim == 1:
        return np.asarray(labels, np.int64)
    counts = np.where(labels, labels.sum(axis=0), len(labels) + 1)
    return np.where(labels.any(axis=1), counts.argmin(axis=1), -1).astype(np.int64)


def spread_over_classes(labels: Labels, count: int) -> NDArray[np.int64]:
    """The numbers of `count` images, class by class: as many of each class (`class_of_each`) as there are, up to one more.

    Within a class they are evenly spread. Images without a class are left out, so there may be fewer than `count`.
    """
    classes = class_of_each(labels)
    present, sizes = np.unique(classes[classes >= 0], return_counts=True)
    chosen = []
    for label, share in zip(present, equal_shares(sizes, count), strict=True):
        images = np.flatnonzero(classes == label)
        chosen.append(images[(2 * np.arange(share) + 1) * len(images) // (2 * max(share, 1))])
    return np.concatenate(chosen).astype(np.int64)


def equal_shares(sizes: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """How many of `count` items each group gets, as equally as the groups' sizes allow; all items if there are fewer.

    Items that do not divide evenly go to groups that are evenly spread: with fewer items than groups, some groups get none.
    """
    shares = np.zeros_like(sizes)
    while (left := min(count, int(sizes.sum())) - int(shares.sum())) > 0:
        open_groups = np.flatnonzero(shares < sizes)
        if left < len(open_groups):
            open_groups = open_groups[(2 * np.arange(left) + 1) * len(open_groups) // (2 * left)]
        shares[open_groups] += 1
    return shares


def split_by_name(names: Sequence[str], test_share: float) -> list[SplitName]:
    """A split for files without an official one: ordered by the SHA-256 of their names, the first are the test images.

    For Cats vs Dogs and a test share of 0.2 this gives the paper's 18,609 and 4,653 images, though not the same ones.
    """
    order = sorted(range(len(names)), key=lambda i: hashlib.sha256(names[i].encode()).digest())
    test = set(order[: len(names) - int(len(names) * (1 - test_share))])
    return ["test" if i in test else "train" for i in range(len(names))]
