"""A cue painted on images: a coloured disc that has nothing to do with what the image shows."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

COLOUR = (235, 30, 180)
"""Magenta, which no painted bird has."""
FINE = 4
"""The disc's edge is averaged over so many points a side of each pixel."""


def paint_cue(
    images: NDArray[np.uint8], size: float, seeds: Sequence[int]
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Images `[N, H, W, 3]` with a disc each, and its masks `[N, H, W]`, where it covers at least half of a pixel.

    `size` is its diameter as share of the shorter side. Place and shade depend on the image's seed alone. A pixel that
    the disc does not touch does not change.
    """
    covered = np.stack([_disc(images.shape[1:3], size, np.random.default_rng(seed)) for seed in seeds])
    shades = np.stack([np.random.default_rng([seed, 1]).uniform(0.85, 1.05) * np.array(COLOUR) for seed in seeds])
    painted = images + covered[..., None] * (shades[:, None, None] - images)
    return np.clip(painted + 0.5, 0, 255).astype(np.uint8), covered >= 0.5


def _disc(sides: Sequence[int], size: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """The share of each pixel `[H, W]` that a disc covers; it lies wholly inside the image."""
    radius = size * min(sides) / 2
    centre = [rng.uniform(radius, side - radius) for side in sides]
    y, x = ((np.arange(side * FINE) + 0.5) / FINE - at for side, at in zip(sides, centre, strict=True))
    inside = y[:, None] ** 2 + x**2 <= radius**2
    shares: NDArray[np.float64] = inside.reshape(sides[0], FINE, sides[1], FINE).mean(axis=(1, 3))
    return shares
