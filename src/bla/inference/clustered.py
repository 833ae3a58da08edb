"""Intervals of shares when one person gives several answers: whole persons are drawn, never single answers."""

import numpy as np
from numpy.typing import NDArray

from bla.inference.paired import Interval

Array = NDArray[np.float64]
FEWEST = 6
"""Persons, or runs, below which a bootstrap gives no interval; a signed-rank test of fewer has no p below 0.05 either."""


def cluster_bootstrap(sums: Array, counts: Array, resamples: int, seed: int) -> list[Interval]:
    """95 % percentile intervals of K means over all answers, from resamples of P persons.

    `sums` `[P, K]` are each person's sums, `counts` `[P]` each person's number of answers; a mean is the sum over persons
    divided by the number of their answers. NaN for fewer than `FEWEST` persons.

    Source: Cameron, Gelbach and Miller 2008 (pairs cluster bootstrap).
    """
    if len(counts) < FEWEST:
        return [Interval(np.nan, np.nan)] * sums.shape[1]
    rng = np.random.default_rng(seed)
    times = rng.multinomial(
        len(counts), np.full(len(counts), 1 / len(counts)), size=resamples
    )  # how often each is drawn
    means = (times @ sums) / (times @ counts)[:, None]
    return [Interval(float(low), float(high)) for low, high in np.quantile(means, [0.025, 0.975], axis=0).T]
