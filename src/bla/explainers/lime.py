"""LIME on the grid of the feature map: which patches of the image does the classifier's output depend on?

Ribeiro et al. 2016, "Why should I trust you?", as Baumhauer et al. 2021 use it in section 4.3: the patches of the image
that lie over the cells are the interpretable features, absent patches are black, and a linear model of which patches are
shown is fitted by least squares to the classifier's output under random patterns. Its coefficients are the map.

    patterns = draw_patterns(1000, 49, presence=0.5, seed=0)
    for scores in occluded_scores(classifier, images, patterns, targets, grid=7):   # [R, P] an image
        maps = fit(patterns, scores)                                                # [R, 49]
"""

import torch
from torch import Tensor


def draw_patterns(count: int, cells: int, presence: float, seed: int) -> Tensor:
    """Random patterns, bool `[count, cells]`; each patch is shown with probability `presence`."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, cells, generator=generator) < presence


def fit(patterns: Tensor, scores: Tensor) -> Tensor:
    """The coefficients `[..., cells]` of the least-squares linear model, with an intercept, of `scores` `[..., P]`.

    Computed in double precision; patterns that do not determine the coefficients give those of the smallest norm.
    """
    shown = patterns.double()
    design = torch.cat([torch.ones(len(shown), 1, dtype=torch.double), shown], dim=1)
    coefficients: Tensor = scores.double() @ torch.linalg.pinv(design).T
    return coefficients[..., 1:]
