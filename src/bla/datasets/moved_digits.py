"""Handwritten digits of 28x28 grey pixels, each turned, scaled and moved a little: a stand-in for MNIST without a download.

Drawn from the 1,797 real 8x8 digits that scikit-learn ships (Alpaydin and Kaynak, UCI). As in MNIST a digit is white on
black and about 20 pixels large. Training and test images come from different handwritten sources (`source_split`).

    images, labels = generate((3, 8), 4800, "train", seed=0)       # uint8 [4800, 28, 28], int64 [4800]
"""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import affine_transform

from bla.datasets import SplitName
from bla.datasets.cluttered_digits import handwritten, source_split

SIDE = 28
LARGEST_TURN = 15
"""Degrees, to either side."""
LARGEST_SHIFT = 3
"""Pixels, along each axis."""
LARGEST_SCALING = 0.15
"""Of the digit's size, up or down."""


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
