"""Explanations of every column of Table 1: Figures 2 and 12 to 23."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from bla.base.paper import COLUMNS
from bla.plotting.overlay import overlay
from bla.plotting.style import STYLE


def explanations(
    images: NDArray[np.uint8],
    logits: NDArray[np.float64],
    soft: NDArray[np.float64],
    hard: NDArray[np.float64],
    captions: list[str],
    heading: str,
    own_scale: bool = False,
) -> Figure:
    """A column per image: input, logits with their colour bar, soft weights, hard cells, overlay.

    `images` uint8 `[M, H, W, 3]`; the maps `[M, h, w]`. The paper's "soft" pictures show the logits, not q; this
    figure shows both. With `own_scale` every image has its own colour bar, for logits that differ much between images.
    """
    count = len(images)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(5, count, figsize=(1.75 * count + 0.9, 9), squeeze=False, layout="constrained")
        figure.suptitle(heading)
        scales = [_limits(logits), (0.0, float(soft.max()))]
        shrink = 0.7 if own_scale else 0.85
        for i in range(count):
            axes[0, i].imshow(images[i])
            axes[0, i].set_title(captions[i])
            for row, (maps, (low, high)) in enumerate(zip((logits, soft), scales, strict=True), start=1):
                low, high = _limits(maps[i]) if own_scale else (low, high)
                drawn = axes[row, i].imshow(maps[i], cmap="viridis", vmin=low, vmax=high)
                if own_scale or i == count - 1:
                    beside = axes[row, i] if own_scale else axes[row, :].tolist()
                    figure.colorbar(drawn, ax=beside, shrink=shrink, pad=0.01)
            axes[3, i].imshow(hard[i], cmap="gray", vmin=0, vmax=1)
            axes[3, i].set_xlabel(f"{int(hard[i].sum())} of {hard[i].size} cells")
            axes[4, i].imshow(overlay(images[i], hard[i]))
        for row, label in enumerate(("input", "logits ℓ", "soft weights", "hard explanation", "overlay")):
            axes[row, 0].set_ylabel(label)
        _bare(axes)
    return figure


SHORT = 12
"""Letters of a class name in front of its probability; a longer one has a line of its own, so that neighbours do not touch."""
Predictions = tuple[Sequence[str], NDArray[np.float64], NDArray[np.bool_]]
"""For each image the predicted class as a caption, its probability, and whether it is right."""


def overview(
    images: NDArray[np.uint8],
    hard: Mapping[str, NDArray[np.float64]],
    predictions: Mapping[str, Predictions],
    captions: list[str],
) -> Figure:
    """A column per image: the input with BL's prediction, and below it what each column of Table 1 keeps and predicts.

    `images` uint8 `[M, H, W, 3]`; `hard` `[M, h, w]` by column; `predictions` by column, BL's with the key `bl`;
    `captions` are the true classes. Right predictions are bold.
    """
    count = len(images)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1 + len(hard), count, figsize=(1.75 * count, 2.0 * (1 + len(hard)) + 0.2), squeeze=False, layout="constrained")  # fmt: skip
        for row, key in enumerate(("bl", *hard)):
            classes, probabilities, right = predictions[key]
            for i, axis in enumerate(axes[row]):
                axis.imshow(images[i] if key == "bl" else overlay(images[i], hard[key][i]))
                size = "" if key == "bl" else f"{int(hard[key][i].sum())} of {hard[key][i].size} cells\n"
                between = " " if len(classes[i].splitlines()[-1]) <= SHORT else "\n"
                predicted = f"{classes[i]},{between}{probabilities[i]:.0%}"
                axis.set_xlabel(size + predicted, fontweight="bold" if right[i] else "normal")
            axes[row, 0].set_ylabel("BL: all cells" if key == "bl" else COLUMNS.get(key, key))
        for axis, caption in zip(axes[0], captions, strict=True):
            axis.set_title(caption)
        _bare(axes)
    return figure


def _limits(values: NDArray[np.float64]) -> tuple[float, float]:
    return float(values.min()), float(values.max())


def _bare(axes: NDArray[Any]) -> None:
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
