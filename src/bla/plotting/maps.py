"""Maps of several methods beside their images, frames around cells, and a sentence in place of a picture."""

from collections.abc import Mapping, Sequence
from textwrap import fill
from types import MappingProxyType

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from bla.plotting.overlay import outline, overlay, scaled
from bla.plotting.style import STYLE

Array = NDArray[np.float64]
COLUMNS = 6
"""Pictures in a row of `one_by_one`."""


def sentence(text: str) -> Figure:
    """A picture of one sentence, in the place of a picture that was not drawn."""
    with plt.rc_context(STYLE):
        figure = plt.figure(figsize=(8, 0.6))
        figure.text(0.02, 0.5, text, va="center")
    return figure


def side_by_side(
    images: NDArray[np.uint8],
    maps: Mapping[str, Array],
    captions: list[str],
    heading: str,
    grid: Sequence[int],
    sets: Mapping[str, Sequence[Sequence[int]]] = MappingProxyType({}),
) -> Figure:
    """A row per image, a column per method: half the image, half the map, from its smallest (blue) to its largest value (red).

    `images` uint8 `[m, H, W, 3]`; `maps` by title `[m, h, w]`, of any resolution, NaN if not explained; `sets` by title, for each image the
    cells of the `grid` to outline in white.
    """
    count, height = len(maps) + 1, 0.13 + 1.12 * images.shape[1] / images.shape[2]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(len(images), count, figsize=(1.12 * count, height * len(images) + 0.6), squeeze=False, layout="constrained")  # fmt: skip
        figure.suptitle(fill(heading, 14 * count))
        for row, image in enumerate(images):
            axes[row, 0].imshow(image)
            axes[row, 0].set_ylabel(captions[row])
            for column, values in enumerate(maps.values(), start=1):
                _draw_map(axes[row, column], image, values[row])
        for column, title in enumerate(maps, start=1):
            for row, chosen in enumerate(sets.get(title, [])):
                outline(axes[row, column], chosen, grid, images.shape[1:3])
        for column, title in enumerate(("input", *maps)):
            axes[0, column].set_title(fill(title, 15))
        for axis in axes.flat:
            axis.set(xticks=[], yticks=[])
    return figure


def one_by_one(
    image: NDArray[np.uint8],
    maps: Mapping[str, Array],
    heading: str,
    grid: Sequence[int],
    sets: Mapping[str, Sequence[int]] = MappingProxyType({}),
) -> Figure:
    """One image `[H, W, 3]`, then its overlay by each method: as in `side_by_side`, but larger and in several rows."""
    rows = -(-(len(maps) + 1) // COLUMNS)
    height = 0.35 + 2.2 * image.shape[0] / image.shape[1]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(rows, COLUMNS, figsize=(2.2 * COLUMNS, height * rows + 0.3), squeeze=False, layout="constrained")  # fmt: skip
        figure.suptitle(fill(heading, 20 * COLUMNS))
        for axis in axes.flat:
            axis.set(xticks=[], yticks=[])
        axes[0, 0].imshow(image)
        axes[0, 0].set_title("input")
        for axis, (title, values) in zip(axes.flat[1:], maps.items(), strict=False):
            _draw_map(axis, image, values)
            axis.set_title(fill(title, 26))
            outline(axis, sets.get(title, []), grid, image.shape[:2])
        for axis in axes.flat[len(maps) + 1 :]:
            axis.axis("off")
    return figure


def _draw_map(axis: Axes, image: NDArray[np.uint8], values: Array) -> None:
    """Half the image, half the map from its smallest to its largest value; a remark for a constant map or none (NaN)."""
    if np.isnan(values).any():
        axis.set_xlabel("not explained")
        return
    shares, constant = scaled(values)
    axis.imshow(overlay(image, shares))
    axis.set_xlabel("constant" if constant else "")
