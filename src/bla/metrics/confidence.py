"""Average drop and increase in confidence: the class's probability when only the explanation is visible.

Chattopadhay et al. 2018; the explanation image and the shares of 100, 50 and 15 % are those of Gkartzonika et al. 2022.

    kept, has_ties = keep_largest(explanation_mask(maps, (224, 224)), 0.15, first_out)
    drop = average_drop(probability_of_image, probability_of_explanation)
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from bla.base.rounding import BITS, larger


def explanation_mask(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Maps `[B, h, w]` scaled to [0, 1] by their least and largest value and upsampled bilinearly, `[B, H, W]`.

    A constant map becomes 1 everywhere: it keeps the whole image. A map with a NaN becomes NaN everywhere. Cells, and then pixels, are rounded to multiples of
    2^-20, so that pixels between equal cells are equal.
    """
    low, high = maps.amin(dim=(1, 2), keepdim=True), maps.amax(dim=(1, 2), keepdim=True)
    scaled = torch.where(high == low, 1, (maps - low) / torch.where(high == low, 1, high - low))
    upsampled = interpolate(_multiples(scaled)[:, None], list(size), mode="bilinear")[:, 0]
    return _multiples(upsampled)


def _multiples(values: Tensor) -> Tensor:
    """Values rounded to multiples of 2^-20."""
    result: Tensor = (values * 2**BITS).round() / 2**BITS
    return result


def keep_largest(masks: Tensor, share: float, first_out: Tensor) -> tuple[Tensor, Tensor]:
    """The masks `[B, H, W]` with all but the largest `share` of the pixels set to 0, and which had a choice, bool `[B]`.

    Let t be the k-th smallest value, k = floor(HW (1 - share)). Values below t become 0, then pixels equal to t, by
    decreasing `first_out` `[B, H, W]` and from the first, until ceil(HW share) positive pixels are left; fewer if t is
    0. An image has a choice if some of its pixels equal to t become 0, but not all. A share of 1 changes nothing.
    """
    if share == 1:
        return masks, torch.zeros(len(masks), dtype=torch.bool)
    flat = masks.flatten(1)
    pixels = flat.shape[1]
    bound = flat.kthvalue(math.floor(pixels * (1 - share) + 1e-9), dim=1, keepdim=True).values
    kept = torch.where(flat < bound, 0, flat)
    surplus = (kept > 0).sum(dim=1, keepdim=True) - math.ceil(pixels * share - 1e-9)
    order = first_out.flatten(1).argsort(dim=1, descending=True, stable=True)
    tied = ((kept == bound) & (kept > 0)).gather(1, order)
    out = tied & (tied.cumsum(dim=1) <= surplus)
    kept = kept.masked_fill(torch.zeros_like(out).scatter(1, order, out), 0)
    return kept.view(masks.shape), (out.any(dim=1) & (tied & ~out).any(dim=1)).cpu()


def average_drop(whole: NDArray[np.float64], explained: NDArray[np.float64]) -> NDArray[np.float64]:
    """100 max(0, Y - O) / Y of the probabilities on the image and on the explanation image, in per cent."""
    return np.asarray(100 * np.maximum(0, whole - explained) / whole)


def increase(whole: NDArray[np.float64], explained: NDArray[np.float64]) -> NDArray[np.float64]:
    """100 if the class is more probable on the explanation image than on the image, by more than rounding; else 0; NaN of NaN."""
    return np.where(np.isnan(explained - whole), np.nan, np.where(larger(explained, whole), 100.0, 0.0))
