"""Do the runs of a learned method keep the same cells? Agreement over runs, corrected for chance (docs/agreement.md)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Cells = NDArray[np.bool_]

OTHERS = 20
"""Other images with which an image is compared, at most."""


@dataclass(frozen=True)
class Overlaps:
    """Mean overlaps (intersection over union) `[R, N]` of R runs and N images.

    `same`: with the other runs on this image. `chance`: with what the other runs like best on other images, as many
    cells as they keep on this one; NaN for one image. `other_image`: with the same run on other images of the same predicted class; NaN
    if there are none.
    """

    same: Array
    chance: Array
    other_image: Array


def overlaps(hard: Cells, soft: Array, classes: NDArray[np.int64], seed: int) -> Overlaps:
    """The overlaps of hard explanations `[R, N, n]`; `soft` `[R, N, n]` orders the cells, `classes` `[R, N]` are predicted."""
    (runs, images, _), rng = hard.shape, np.random.default_rng(seed)
    assert runs > 1, "agreement needs at least two runs"
    order = np.lexsort((rng.random(soft.shape), -soft, ~hard), axis=2)  # kept cells come first
    places = np.argsort(order, axis=2)  # the place of each cell in its image
    size = hard.sum(axis=2)
    same, chance = np.zeros((runs, images)), np.full((runs, images), 0.0 if images > 1 else np.nan)
    others = [_other_images(images, rng) for _ in range(min(OTHERS, images - 1))]
    for a in range(runs):
        for b in range(runs):
            if a != b:
                same[a] += _iou(hard[a], hard[b]) / (runs - 1)
                for j in others:
                    chance[a] += _iou(hard[a], places[b, j] < size[b][:, None]) / (runs - 1) / len(others)
    other_image = np.stack([_on_other_images(hard[r], classes[r], rng) for r in range(runs)])
    return Overlaps(same, chance, other_image)


def agreement(found: Overlaps) -> tuple[float, Array]:
    """(same - chance) / (1 - chance), and its linearisation `[R, N]`, whose spread over runs and images is the agreement's.

    0 if chance is 1, NaN for one image. The linearisation is NaN for fewer than three runs (`of_pairs`).
    """
    room = 1 - found.chance.mean()
    if room < 1e-9:
        return 0.0, of_pairs(np.zeros_like(found.same))
    value = float((found.same.mean() - found.chance.mean()) / room)
    return value, value + of_pairs((found.same - found.chance - value * (1 - found.chance)) / room)


def of_pairs(values: Array) -> Array:
    """Pseudo-values over runs, `[R, N]`, of means over the pairs of each run with the others; NaN for fewer than three runs.

    Every pair is in the means of both its runs, so that these vary about half as much as runs do. The jackknife, which
    leaves a run out, multiplies their deviations by 2 (R - 1) / (R - 2) (Arvesen 1969).
    """
    runs = len(values)
    if runs < 3:
        return np.full_like(values, np.nan)
    deviations = values.mean(axis=1, keepdims=True) - values.mean()
    result: Array = values + (2 * (runs - 1) / (runs - 2) - 1) * deviations
    return result


def _iou(first: Cells, second: Cells) -> Array:
    """Intersection over union `[...]` of sets of cells `[..., n]`; 0 if both are empty."""
    both, either = (first & second).sum(axis=-1), (first | second).sum(axis=-1)
    result: Array = np.divide(both, either, out=np.zeros(either.shape), where=either > 0)
    return result


def _other_images(images: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """For each image the number of another one, drawn at random."""
    shift = rng.integers(1, images, images)
    return (np.arange(images) + shift) % images


def _on_other_images(hard: Cells, classes: NDArray[np.int64], rng: np.random.Generator) -> Array:
    """The mean overlap `[N]` of one run's sets `[N, n]` with its sets on other images of the same class."""
    result = np.full(len(hard), np.nan)
    for label in np.unique(classes):
        members = np.flatnonzero(classes == label)
        for place, image in enumerate(members):
            rest = np.delete(members, place)
            if len(rest):
                chosen = rng.permutation(rest)[:OTHERS]
                result[image] = _iou(hard[image], hard[chosen]).mean()
    return result
