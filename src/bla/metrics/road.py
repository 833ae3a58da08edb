"""ROAD: the class's probability after cells are removed and imputed from their neighbours (Rong et al. 2022).

    hidden = removed(ranks, removed_counts(49))                    # bool [..., 2, S, n]: most, then least relevant first
    pixels = impute(image, hidden.flatten(0, -2), grid, seed)      # [P, H, W, 3]

A black or blurred cell shows where it was, and a classifier can read that. So each hidden pixel becomes the weighted
mean of its eight neighbours (direct 1/6, diagonal 1/12), plus a little noise: one sparse linear system per mask.
"""

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import splu
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, adaptive_max_pool2d, interpolate

from bla.networks.patches import Grid, cells_of_pixels

SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9)
"""The removed shares of the cells."""
NOISE = 0.01
"""Standard deviation of the noise, for pixels in [0, 1]."""
POINTS = 56
"""The system is solved for at most so many points a side: pixels, or means of equal blocks of pixels in larger images."""
NEIGHBOURS = ((0, 1, 1 / 6), (1, 0, 1 / 6), (1, 1, 1 / 12), (1, -1, 1 / 12))
"""Offsets and weights of half of the eight neighbours; the system is symmetric."""


def removed_counts(cells: int) -> list[int]:
    """How many cells are removed at each of `SHARES`: at least one, and never all of them."""
    return [min(max(1, round(share * cells)), cells - 1) for share in SHARES]


def removed(ranks: Tensor, counts: list[int]) -> Tensor:
    """The removed cells, bool `[..., 2, S, n]`, from ranks `[..., n]`: the most relevant first, and the least relevant first."""
    first = ranks[..., None, :] < torch.tensor(counts)[:, None]
    last = ranks[..., None, :] >= ranks.shape[-1] - torch.tensor(counts)[:, None]
    return torch.stack([first, last], dim=-3)


def impute(image: Tensor, hidden: Tensor, grid: Grid, seed: int) -> Tensor:
    """The image uint8 `[H, W, 3]` with the cells `hidden` (bool `[P, n]`, never all) imputed: float `[P, H, W, 3]`.

    Pixels that are not hidden do not change. The noise of a pixel is the same in every mask.
    """
    size = image.shape[0], image.shape[1]
    points = min(size[0], POINTS), min(size[1], POINTS)
    pixels = image.permute(2, 0, 1).double()
    known = adaptive_avg_pool2d(pixels, points).flatten(1).T.numpy()  # [points, 3]; used where no pixel is hidden
    masks = hidden[:, cells_of_pixels(size, grid)]  # [P, H, W]
    unknown = adaptive_max_pool2d(masks[:, None].float(), points).bool().flatten(1).numpy()
    solved = torch.from_numpy(np.stack([solve(known, of_mask, points) for of_mask in unknown])).float()
    enlarged = interpolate(solved.mT.unflatten(2, points), size, mode="bilinear")
    noise = torch.randn(3, *size, generator=torch.Generator().manual_seed(seed)) * (255 * NOISE)
    return torch.where(masks[:, None], enlarged.add_(noise), pixels.float()).permute(0, 2, 3, 1)


def solve(known: NDArray[np.float64], unknown: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.float64]:
    """Values `[HW, C]` in which each `unknown` point (bool `[HW]`) is the weighted mean of its neighbours inside the image.

    One factorisation serves all C channels.
    """
    rows = _system(size)[unknown]
    system, given = rows[:, unknown].tocsc(), -(rows[:, ~unknown] @ known[~unknown])
    # The matrix is symmetric and positive definite: an order for symmetric matrices, without pivoting, is the fastest.
    factors = splu(system, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0, options={"SymmetricMode": True})
    result = known.copy()
    result[unknown] = factors.solve(given)
    return result


@lru_cache(maxsize=4)
def _system(size: tuple[int, int]) -> sparse.csr_array:
    """The matrix `[HW, HW]` whose row i says that point i minus the weighted mean of its neighbours is 0, times the weights."""
    number = np.arange(size[0] * size[1]).reshape(size)
    weights = sparse.csr_array((number.size, number.size))
    for down, right, weight in NEIGHBOURS:
        here = number[: size[0] - down, max(0, -right) : size[1] - max(0, right)].ravel()
        there = here + down * size[1] + right
        weights = weights + sparse.coo_array((np.full(here.size, weight), (here, there)), weights.shape).tocsr()
    weights = weights + weights.T
    return (sparse.diags_array(weights.sum(axis=1)) - weights).tocsr()
