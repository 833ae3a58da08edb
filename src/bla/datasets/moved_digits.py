"""Handwritten digits of 28x28 grey pixels, each turned, scaled and moved a little: a stand-in for MNIST without a download.

Drawn from the 1,797 real 8x8 digits that scikit-learn ships (Alpaydin and Kaynak, UCI). As in MNIST a digit is white on
black and about 20 pixels large. Training and test images come from different handwritten sources (`source_split`).

    images, labels = generate((3, 8), 4800, "train", seed=0)       # uint8 [4800, 28, 28], int64 [4800]
"""

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import affine_transform

from bla.datasets import SplitName

TEST_SHARE = 0.2
"""Share of each class's handwritten digits that is reserved for test images."""

SIDE = 28
LARGEST_TURN = 15
"""Degrees, to either side."""
LARGEST_SHIFT = 3
"""Pixels, along each axis."""
LARGEST_SCALING = 0.15
"""Of the digit's size, up or down."""


@cache
def handwritten() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The 1,797 handwritten digits, `[1797, 8, 8]` from 0 to 16, and their classes: scikit-learn's `load_digits`.

    Read from scikit-learn's file without importing it, which takes longer than drawing a thousand images.
    """
    package = find_spec("sklearn")
    assert package is not None
    assert package.origin is not None
    table = np.loadtxt(Path(package.origin).parent / "datasets/data/digits.csv.gz", delimiter=",")
    return table[:, :-1].reshape(-1, 8, 8), table[:, -1].astype(np.int64)


@cache
def source_split() -> dict[str, NDArray[np.int64]]:
    """The one split of the 1,797 handwritten digits, 80 to 20 in each class: indices into `handwritten`.

    It has no parameters on purpose: a digit used for training is training data in every experiment.
    """
    _, labels = handwritten()
    rng = np.random.default_rng(1797)
    test = np.concatenate(
        [(order := rng.permutation(np.flatnonzero(labels == c)))[: round(TEST_SHARE * len(order))] for c in range(10)]
    )
    return {"train": np.setdiff1d(np.arange(len(labels)), test), "test": np.sort(test)}


def generate(
    classes: tuple[int, ...], count: int, split: SplitName, seed: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """`count` images `[N, 28, 28]`, the classes in equal shares, and their labels: positions in `classes`.

    Image i depends on (seed, split, i) and the classes alone.
    """
    digits, labels_of = handwritten()
    sources = source_split()[split]
    by_class = [sources[labels_of[sources] == c] for c in classes]
    labels = np.arange(count, dtype=np.int64) % len(classes)
    images = np.empty((count, SIDE, SIDE), np.uint8)
    for i in range(count):
        rng = np.random.default_rng([seed, split == "train", i])
        source = digits[rng.choice(by_class[labels[i]])]
        turn = np.deg2rad(rng.uniform(-LARGEST_TURN, LARGEST_TURN))
        size = 20 * rng.uniform(1 - LARGEST_SCALING, 1 + LARGEST_SCALING)
        shift = rng.uniform(-LARGEST_SHIFT, LARGEST_SHIFT, 2)
        # From a pixel of the image to its position in the 8x8 digit.
        matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) * len(source) / size
        middle = (SIDE - 1) / 2 + shift
        offset = (len(source) - 1) / 2 - matrix @ middle
        grey = affine_transform(source, matrix, offset, (SIDE, SIDE), order=3, mode="grid-constant")
        images[i] = np.clip(grey * 255 / 16 + 0.5, 0, 255)
    return images, labels
