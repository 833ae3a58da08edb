"""A contact sheet: a row per image, a column per method. It uses no pyplot, so that a notebook's settings stay as they are."""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib import style
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from numpy.typing import NDArray

from bla.plotting.overlay import outline, overlay, scaled

__all__ = ["Figure", "can_draw", "contact_sheet", "drawable", "save_sheet", "scaled_overlay"]

Array = NDArray[np.float64]


def can_draw(text: str) -> bool:
    """Whether the font of the pictures has all letters of a text."""
    return all(ord(letter) in _letters() for letter in text)


@cache
def _letters() -> set[int]:
    font: Any = get_font(findfont("DejaVu Sans"))
    return set(font.get_charmap())


def drawable(text: str, otherwise: str) -> str:
    """The text, or `otherwise` if the font lacks a letter of it."""
    return text if can_draw(text) else otherwise


def scaled_overlay(image: NDArray[np.uint8], values: Array) -> Array:
    """Half image, half map `[h, w]`, from its smallest (blue) to its largest value (red); `[H, W, 3]` in [0, 1]."""
    return overlay(image, scaled(values)[0])


def contact_sheet(
    images: NDArray[np.uint8],
    maps: Mapping[str, Array],
    hard: Mapping[str, NDArray[np.bool_]],
    captions: Sequence[str],
) -> Figure:
    """Images `[m, H, W, 3]` with a caption each, then the maps `[m, h, w]` of each method by title.

    The cells of hard explanations `[m, rows, columns]` have white frames.
    """
    size = images.shape[1:3]
    width = 2 * size[1] / max(size)
    with style.context("default"):  # a user's matplotlibrc or notebook changes no picture
        figure = Figure(
            figsize=(width * (len(maps) + 1), (0.35 + 2 * size[0] / max(size)) * len(images)), layout="constrained"
        )
        axes = figure.subplots(len(images), len(maps) + 1, squeeze=False)
        for row, image in enumerate(images):
            axes[row, 0].imshow(image)
            axes[row, 0].set_xlabel(fill(captions[row], 28), fontsize=7, parse_math=False)
            for column, (title, values) in enumerate(maps.items(), start=1):
                axis, chosen = axes[row, column], hard[title][row]
                shares, constant = scaled(values[row])
                axis.imshow(overlay(image, shares))
                outline(axis, np.flatnonzero(chosen).tolist(), chosen.shape, size)
                if constant:
                    axis.set_xlabel("constant", fontsize=7)
                if not row:
                    axis.set_title(fill(title, 22), fontsize=8, parse_math=False)
        for axis in axes.flat:
            axis.set(xticks=[], yticks=[])
    return figure


def save_sheet(figure: Figure, path: Path) -> None:
    """Write a contact sheet as PNG."""
    with style.context("default"):
        figure.savefig(path, format="png", dpi=100, metadata={"Software": None})
