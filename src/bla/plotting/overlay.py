"""Explanations drawn over images."""

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from bla.base.rounding import larger


def overlay(image: NDArray[np.uint8], hard: NDArray[np.float64], largest: float | None = None) -> NDArray[np.float64]:
    """Half image, half Turbo colours of a map `[h, w]`, scaled to its maximum, or `largest`, and upsampled bilinearly.

    Returns `[H, W, 3]` in [0, 1] for a uint8 image `[H, W, 3]` (paper, section 3.2; half and half as in the code).
    """
    large = _upsample(
        hard / max(hard.max() if largest is None else largest, 1e-12), image.shape[:2]
    )  # pointwise attention may select no cell
    colours = matplotlib.colormaps["turbo"](large)[..., :3]
    mixed: NDArray[np.float64] = 0.5 * image / 255 + 0.5 * colours
    return mixed


def scaled(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], bool]:
    """A map from its smallest (0) to its largest value (1), and whether it is constant up to rounding: then it is 1 everywhere.

    A map with NaN is not constant.
    """
    low, high = values.min(), values.max()
    if larger(high, low):
        return (values - low) / (high - low), False
    return np.ones_like(values), bool(high >= low)


def outline(axis: Axes, cells: Sequence[int], grid: Sequence[int], size: Sequence[int]) -> None:
    """Draw white frames around some cells of a grid over an image of this height and width."""
    height, width = (pixels / count for pixels, count in zip(size, grid, strict=True))
    for cell in cells:
        row, column = divmod(cell, grid[1])
        corner = (column * width - 0.5, row * height - 0.5)
        axis.add_patch(Rectangle(corner, width, height, fill=False, edgecolor="white", linewidth=1.2))


def _upsample(small: NDArray[np.float64], sides: Sequence[int]) -> NDArray[np.float64]:
    """Bilinear upsampling `[h, w]` to `sides` (H, W), between the centres of cells and constant outside them."""
    result = small
    for axis, (count, size) in enumerate(zip(small.shape, sides, strict=True)):
        at = np.clip((np.arange(size) + 0.5) * count / size - 0.5, 0, count - 1)
        low = np.floor(at).astype(int)
        share = at - low
        shape = (-1, 1) if axis == 0 else (1, -1)
        result = np.take(result, low, axis) * (1 - share).reshape(shape) + np.take(
            result, np.minimum(low + 1, count - 1), axis
        ) * share.reshape(shape)
    return result
