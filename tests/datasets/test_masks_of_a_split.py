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
