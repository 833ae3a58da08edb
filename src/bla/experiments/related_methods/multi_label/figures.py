"""Masks of the classes that are present beside the image, and class-specificity matrices."""

from collections.abc import Mapping, Sequence
from textwrap import fill

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from bla.plotting.maps import sentence
from bla.plotting.overlay import overlay
from bla.plotting.style import STYLE

Array = NDArray[np.float64]


def mask_pictures(
    images: NDArray[np.uint8], masks: Mapping[str, Array], captions: Sequence[str], heading: str
) -> Figure:
    """A row per pair (image, class), a column per method: half the image, half the mask, blue 0 and red 1.

    `images` uint8 `[m, H, W, 3]`, `masks` by title `[m, H, W]` in [0, 1].
    """
    if not len(images):
        return sentence(f"{heading}: no image shows a class")
    columns = len(masks) + 1
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(len(images), columns, figsize=(1.4 * columns, 1.4 * len(images) + 0.6), squeeze=False, layout="constrained")  # fmt: skip
        figure.suptitle(fill(heading, 17 * columns))
        for row, image in enumerate(images):
            axes[row, 0].imshow(image)
            axes[row, 0].set_ylabel(captions[row])
            for column, values in enumerate(masks.values(), start=1):
                axes[row, column].imshow(overlay(image, values[row], largest=1))
                axes[row, column].set_xlabel(f"area {values[row].mean():.2f}")
        for column, title in enumerate(("input", *masks)):
            axes[0, column].set_title(fill(title, 17))
        for axis in axes.flat:
            axis.set(xticks=[], yticks=[])
    return figure


def specificity_matrices(matrices: Mapping[str, Array], names: Sequence[str], heading: str) -> Figure:
    """A matrix `[K, 1 + K]` per method, by title: rows are true classes, columns the masks; the first is without one."""
    largest = 20  # names on the axes
    size = max(2.6, 0.45 * (len(names) + 1))
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, len(matrices), figsize=(size * len(matrices) + 1, size + 2.2), squeeze=False, layout="constrained")  # fmt: skip
        figure.suptitle(fill(heading, 35 * len(matrices)))
        for axis, (title, matrix) in zip(axes[0], matrices.items(), strict=True):
            axis.imshow(matrix, cmap="viridis", vmin=0, vmax=100)
            if len(names) <= largest:
                for (row, column), value in np.ndenumerate(matrix):
                    axis.text(column, row, "–" if np.isnan(value) else f"{value:.0f}", ha="center", va="center", fontsize=7, color="black" if value > 60 else "white")  # fmt: skip
                axis.set_xticks(range(len(names) + 1), ["no mask", *names], rotation=90)
            else:
                axis.set_xticks([0], ["no mask"], rotation=90)
            axis.set_yticks(range(len(names)) if axis is axes[0, 0] and len(names) <= largest else [])
            if axis is axes[0, 0] and len(names) <= largest:
                axis.set_yticklabels(names)
            axis.set_title(fill(title, 20))
        axes[0, 0].set_ylabel("images that show")
        axes[0, 0].set_xlabel("under the mask of")
    return figure
