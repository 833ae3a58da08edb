"""Deletion and insertion: the class's probability while cells are hidden or shown in the order of a map.

Petsiuk et al. 2018, at the resolution of the cells (Qi et al. 2020).

    ranks = rank_cells(maps, seeds, orders=5)           # [B, Q, n]
    shown = insertion_patterns(ranks, steps)            # bool [B, Q, S, n]; deletion hides these instead
    area = area_under_curve(probabilities, steps)
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bla.base.rounding import significant


def rank_cells(maps: NDArray[np.float64], seeds: list[int], orders: int) -> Tensor:
    """The rank of every cell, 0 for the most important, in Q = `orders` orders of each map `[B, n]`: `[B, Q, n]`.

    Ties are broken at random in each order, from the image's seed.
    """
    ranks = []
    for values, seed in zip(significant(maps), seeds, strict=True):
        rng = np.random.default_rng(seed)
        lots = [rng.permutation(len(values)) for _ in range(orders)]
        ranks.append([np.argsort(np.lexsort((lot, -values))) for lot in lots])
    return torch.from_numpy(np.array(ranks))


def curve_steps(cells: int, at_once: int) -> list[int]:
    """How many cells are hidden or shown at each point of a curve: from none to all in equal steps."""
    return [*range(0, cells, at_once), cells]


def insertion_patterns(ranks: Tensor, steps: list[int]) -> Tensor:
    """The cells shown at each point of a curve, bool `[..., S, n]`: the most important ones by the ranks `[..., n]`."""
    return ranks[..., None, :] < torch.tensor(steps)[:, None]


def area_under_curve(values: NDArray[np.float64], steps: list[int]) -> NDArray[np.float64]:
    """Area under curves `[..., S]` over the share of cells, by the trapezoidal rule, from none to all."""
    return np.asarray(np.trapezoid(values, np.array(steps) / steps[-1], axis=-1))


def pooled_maps(features: Tensor, ranks: Tensor, steps: list[int]) -> Tensor:
    """Means `[..., S, C]` of the most important cells.

    `features` is `[..., n, C]`, `ranks` `[..., n]`; `steps` are numbers of cells, none of them 0.
    """
    order = ranks.argsort(dim=-1)[..., None].expand(*ranks.shape, features.shape[-1])
    total = features.expand(order.shape).gather(-2, order).cumsum(dim=-2)
    count = torch.tensor(steps, device=features.device)
    return total[..., count - 1, :] / count[:, None]
