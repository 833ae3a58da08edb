"""Cluttered digits: a handwritten digit among fragments of other digits, on a smooth coloured background.

Drawn from the 1,797 real 8x8 digits that scikit-learn ships (Alpaydin and Kaynak, UCI), so nothing is downloaded. The
composition follows the "translated cluttered MNIST" of the attention literature (Mnih et al. 2014): one region of the
image decides its class, the rest is clutter. Fragments come from digits of *every* class and fade out at their edges,
so that neither their content nor their outline reveals the label.

    train = generate(ClutteredDigits("cluttered_digits", (3, 8), 3000, 750, 112, 36, 16, 14), "train", seed=0)
    train.images.shape  # (3000, 112, 112, 3)

The handwritten digits are split once, by `source_split`, for all datasets drawn here and for pretraining the backbone.
"""

from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import zoom
from tqdm import tqdm

from bla.base.specs import ClutteredDigits
from bla.datasets import Split, SplitName, drawn
from bla.runtime.processes import in_processes

TEST_SHARE = 0.2
"""Share of each class's handwritten digits that is reserved for test images."""
AT_ONCE = 250
"""Images that a process draws at a time."""


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

    It has no parameters on purpose: a digit used for training is training data in every dataset.
    """
    _, labels = handwritten()
    rng = np.random.default_rng(1797)
    test = np.concatenate(
        [(order := rng.permutation(np.flatnonzero(labels == c)))[: round(TEST_SHARE * len(order))] for c in range(10)]
    )
    return {"train": np.setdiff1d(np.arange(len(labels)), test), "test": np.sort(test)}


@cache
def _inks(size: int) -> NDArray[np.float32]:
    """All 1,797 digits enlarged to `[1797, size, size]`, 1 where there is ink."""
    images, _ = handwritten()
    enlarged = zoom(images / 16, (1, size / 8, size / 8), order=3, mode="grid-constant", grid_mode=True)
    ink: NDArray[np.float32] = np.clip((enlarged - 0.25) * 2, 0, 1).astype(np.float32)
    return ink


def _fade(size: int) -> NDArray[np.float32]:
    """A window `[size, size]`, 1 in the middle, that fades to 0 at the edges."""
    edge = np.clip(np.sin(np.pi * (np.arange(size) + 0.5) / size) * 1.2, 0, 1)
    return np.outer(edge, edge).astype(np.float32)


def _spread(count: int, size: int) -> NDArray[np.float32]:
    """The matrix `[size, count]` that interpolates `count` points smoothly (cosine) to `size` pixels."""
    at = np.linspace(0, count - 1, size)
    left = np.minimum(at.astype(int), count - 2)
    share = (1 - np.cos(np.pi * (at - left))) / 2
    matrix = np.zeros((size, count), np.float32)
    matrix[np.arange(size), left] = 1 - share
    matrix[np.arange(size), left + 1] = share
    return matrix


def _paint(canvas: NDArray[np.float32], ink: NDArray[np.float32], rng: np.random.Generator) -> tuple[slice, slice]:
    """Paint `ink` at a random place of `canvas` in a random contrasting colour; return the place."""
    size = len(ink)
    top, left = rng.integers(0, len(canvas) - size + 1, 2)
    place = slice(top, top + size), slice(left, left + size)
    under = canvas[place]
    ground, far = under.sum() / under.size, np.zeros(1, np.bool_)
    while not far.any():
        colours = rng.random((16, 3), dtype=np.float32)
        far = abs(colours.sum(axis=1) / 3 - ground) >= 0.25
    under += ink[..., None] * (colours[far.argmax()] - under)
    return place


def generate(spec: ClutteredDigits, split: SplitName, seed: int) -> Split:
    """Draw the images of a split, the classes in equal shares; image i depends on (seed, split, i) and the sizes alone.

    Labels are positions in `spec.classes`; `masks` covers the ink of the whole digit.
    """
    count = spec.train_images if split == "train" else spec.test_images
    parts = [range(start, min(start + AT_ONCE, count)) for start in range(0, count, AT_ONCE)]
    images = np.empty((count, spec.image_size, spec.image_size, 3), np.uint8)
    masks = np.empty((count, spec.image_size, spec.image_size), np.bool_)
    chosen: list[str] = []
    _inks(spec.digit_size)  # before the processes are forked
    with tqdm(total=count, desc=f"draw {split} images", unit="img", disable=None) as bar:
        for part, found in zip(parts, in_processes(partial(_draw, spec, split, seed), parts), strict=True):
            images[part.start : part.stop], masks[part.start : part.stop], sources = found
            chosen += sources
            bar.update(len(part))
    return drawn(images, np.arange(count, dtype=np.int64) % len(spec.classes), masks[:, None], chosen)


def _draw(
    spec: ClutteredDigits, split: SplitName, seed: int, numbers: range
) -> tuple[NDArray[np.uint8], NDArray[np.bool_], list[str]]:
    """Some images of a split, by number: pixels, masks, and the number of each one's handwritten source."""
    size, sources, (_, classes) = spec.image_size, source_split()[split], handwritten()
    by_class = [sources[classes[sources] == c] for c in spec.classes]
    inks, fade, spread = _inks(spec.digit_size), _fade(spec.fragment_size), _spread(4, size)
    images = np.empty((len(numbers), size, size, 3), np.uint8)
    masks = np.zeros((len(numbers), size, size), np.bool_)
    chosen = []
    for i, image, mask in zip(numbers, images, masks, strict=True):
        rng = np.random.default_rng([seed, split == "train", i])
        base = rng.uniform(0.3, 0.7, 3)
        corners = (base + rng.uniform(-0.2, 0.2, (4, 4, 3))).astype(np.float32)
        canvas = spread @ np.tensordot(spread, corners, 1)  # [size, 4] @ [size, 4, 3]: columns, then rows
        for source in rng.choice(sources, spec.fragments):
            top, left = rng.integers(0, spec.digit_size - spec.fragment_size + 1, 2)
            piece = inks[source, top : top + spec.fragment_size, left : left + spec.fragment_size]
            _paint(canvas, piece * fade, rng)
        source = rng.choice(by_class[i % len(by_class)])
        mask[_paint(canvas, inks[source], rng)] = inks[source] > 0.5
        canvas += 0.02 * rng.standard_normal(canvas.shape, np.float32)
        image[:] = np.clip(canvas * 255 + 0.5, 0, 255)
        chosen.append(str(source))
    return images, masks, chosen
