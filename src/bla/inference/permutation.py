"""Permutation tests over images that all runs share: every order of the images is applied to all runs together."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Order = NDArray[np.int64]


def permutation_test(statistics: Callable[[Order], Array], images: int, resamples: int, seed: int) -> Array:
    """Two-sided p `[K]` of K statistics that are 0 on average if the order of the images has no meaning.

    `statistics(order)` returns the values `[K]` when image `order[i]` takes the place of image i, in all runs; a
    statistic that is never negative is thereby tested on its upper side. p is the share of orders, `resamples` random
    ones and the given one, in which the absolute value is at least as large as in the given order: at least
    1 / (`resamples` + 1). Values equal to nine decimals are equal.

    Source: Phipson and Smyth 2010, "Permutation p-values should never be zero".
    """
    rng = np.random.default_rng(seed)
    given = np.abs(statistics(np.arange(images))).round(9)
    as_large = np.ones(len(given))
    for _ in range(resamples):
        as_large += np.abs(statistics(rng.permutation(images))).round(9) >= given
    return as_large / (resamples + 1)
