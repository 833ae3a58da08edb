"""Masks that mark nearly everything in most images stop the preparation."""

import numpy as np
import pytest

from bla.base.errors import BlaError
from bla.datasets.sources import _check_masks


def masks(*shares):
    """Masks `[N, 1, 10, 10]` that mark these shares of their images."""
    return np.array([(np.arange(100) < 100 * share).reshape(1, 10, 10) for share in shares])


@pytest.mark.parametrize(
    "shares", [[1.0] * 3, [0.97, 0.98, 0.2], [1, 1, 0.1, 0.99, 0.5], [*[0.96] * 600, *[0.3] * 300]]
)
def test_inverted_masks_are_refused(shares):
    with pytest.raises(
        BlaError, match=r"train masks mark more than 95% of their image; they may be inverted, or of another"
    ):
        _check_masks(masks(*shares), "binary", "train")


@pytest.mark.parametrize("shares", [[0.5] * 3, [1, 0.2], [0.95] * 4, [0, 0, 0, 0.3], [1.0, 0, 0.4, 0.1]])
def test_some_large_objects_are_accepted(shares):
    _check_masks(masks(*shares), "binary", "train")


def framed(*sizes, inverted=True):
    """Masks `[N, 1, 20, 20]` of a square object of these sizes in the middle, inverted or not."""
    result = np.full((len(sizes), 1, 20, 20), inverted)
    for mask, size in zip(result, sizes, strict=True):
        mask[0, 10 - size // 2 : 10 + size // 2, 10 - size // 2 : 10 + size // 2] = not inverted
    return result


@pytest.mark.parametrize("sizes", [[8] * 3, [6, 10, 12], [8, 12, 20]])
def test_inverted_masks_of_small_objects_are_refused(sizes):
    with pytest.raises(BlaError, match="train masks mark the four corners and more than half"):
        _check_masks(framed(*sizes), "trimap", "train")
    _check_masks(framed(*sizes, inverted=False), "trimap", "train")


@pytest.mark.parametrize("sizes", [[20, 8, 8], [18, 18, 18], [20, 20, 4, 4]])
def test_objects_that_fill_the_image_are_accepted_unless_most_do(sizes):
    _check_masks(framed(*sizes, inverted=False), "binary", "train")
