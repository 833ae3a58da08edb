"""A cue painted on images: a coloured disc that has nothing to do with what the image shows."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

COLOUR = (235, 30, 180)
"""Magenta, which no painted bird has."""


def paint_cue(
    images: NDArray[np.uint8], size: float, seeds: Sequence[int]
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Images `[N, H, W, 3]` with a disc each, and its masks `[N, H, W]`, where it covers at least half of a pixel.

    `size` is its diameter as share of the shorter side. Place and shade depend on the image's seed alone. A pixel that
    the disc does not touch does not change.
    """
    painted, masks = np.empty_like(images), np.empty(images.shape[:3], np.bool_)
    for number, (image, seed) in enumerate(zip(images, seeds, strict=True)):
        rng = np.random.default_rng(seed)
        covered = _disc(image.shape, size, rng)
        shade = rng.uniform(0.85, 1.05) * np.array(COLOUR)
        painted[number] = np.clip(image + covered[..., None] * (shade - image) + 0.5, 0, 255)
        masks[number] = covered >= 0.5
    return painted, masks


def _disc(sides: Sequence[int], size: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Nearly the share of each pixel `[H, W]` that a disc covers; the disc lies wholly inside the image."""
    radius = size * min(sides[:2]) / 2
    y, x = (np.arange(side) + 0.5 - rng.uniform(radius, side - radius) for side in sides[:2])
    shares: NDArray[np.float64] = np.clip(radius - np.hypot(y[:, None], x) + 0.5, 0, 1)
    return shares
