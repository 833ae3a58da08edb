"""Deletion and insertion: the class's probability while cells are hidden or shown in the order of a map.

Petsiuk et al. 2018, at the resolution of the cells (Qi et al. 2020).

    ranks = rank_cells(maps, seeds, orders=5)           # [B, Q, n]
    shown = insertion_patterns(ranks, steps)            # bool [B, Q, S, n]; deletion hides these instead
    area = area_under_curve(probabilities, steps)

`mask_scores` measures the same as the authors of I-GOS and iGOS++ do.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bla.base.errors import BlaError
from bla.base.rounding import joined
from bla.explainers.occlusion import occluded_logits, smooth_masks, target_scores
from bla.networks.classifier import Classifier


def rank_cells(maps: NDArray[np.float64], seeds: list[int], orders: int) -> Tensor:
    """The rank of every cell, 0 for the most important, in Q = `orders` orders of each map `[B, n]`: `[B, Q, n]`.

    Ties are broken at random in each order, from the image's seed.
    """
    ranks = []
    for values, seed in zip(joined(maps), seeds, strict=True):
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


def mask_scores(
    classifier: Classifier,
    images: Tensor,
    behind: Tensor,
    targets: Tensor,
    ranks: Tensor,
    legacy_last_step: bool = False,
) -> NDArray[np.float64]:
    """Deletion and insertion `[2, B]` at the resolution of masks of s x s values, as Khorram et al. 2021 measure them.

    `ranks` `[B, Q, s * s]` are of `rank_cells`; scores are means over the Q orders. At each of about 50 steps the next most
    important values of a mask of ones become 0. The mask is enlarged bilinearly with aligned corners and blends `images`
    uint8 `[B, H, W, 3]` with `behind` `[B, H, W, 3]`: from the image to `behind` (deletion), and back (insertion). A
    score is the sum of the probabilities of the `targets` `[B]` after each step, times the step's share of the mask.

    `legacy_last_step`: the published code, by the precedence of its operators, counts the last step as if the probability
    were 1, which raises both scores by (1 - p) times its share.

    BlaError if the number of values is no square; a mask of another shape must be resized before it is ranked.
    """
    cells = ranks.shape[-1]
    side = math.isqrt(cells)
    if side**2 != cells:
        raise BlaError(
            f"mask_scores: a mask of {cells} values is not square; resize the maps to s x s before ranking them"
        )
    steps = curve_steps(cells, max(1, cells // 50))[1:]
    shares = np.diff(steps, prepend=0) / cells
    scores = np.zeros((2, *ranks.shape[:2]))
    for row, of_orders in enumerate(ranks):
        image, one = images[row : row + 1], behind[row : row + 1]
        for order, places in enumerate(of_orders):
            chosen = insertion_patterns(places, steps).view(1, -1, side, side).to(image.device)
            for kind, (shown, hidden) in enumerate(((~chosen, one), (chosen, one))):
                masks = smooth_masks(shown.float(), image.shape[1:3], align_corners=True)
                (logits,) = occluded_logits(classifier, image, masks, len(steps), hidden)
                values = target_scores(classifier, logits.double(), targets[row : row + 1])[0].cpu().numpy()
                if legacy_last_step:
                    values[-1] = 1
                scores[kind, row, order] = values @ shares
    return np.asarray(scores.mean(axis=2))
