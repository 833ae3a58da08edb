"""A picture of x-features: what each contributes to a class's logit, and its heat map on the images where it is strongest."""

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import fill

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from bla.plotting.overlay import overlay
from bla.plotting.style import STYLE

Array = NDArray[np.float64]


@dataclass(frozen=True)
class DrawnClass:
    """One class: its V x-features in use (there may be none), the strongest first, each with its S strongest images.

    `numbers` of the x-features; `mean` and `error` `[V]` of their contributions; None for a class that is not faithful.
    `images` uint8 `[V, S, H, W, 3]`, `maps` `[V, S, h, w]`, `captions` of the images, V lists of S.
    """

    name: str
    r_squared: float
    numbers: Sequence[int]
    mean: Array | None
    error: Array | None
    images: NDArray[np.uint8]
    maps: Array
    captions: Sequence[Sequence[str]]


def x_features(classes: Sequence[DrawnClass], heading: str) -> Figure:
    """For each class its contributions (bars: one standard error), and on the right a column of images per x-feature."""
    shown, width = classes[0].maps.shape[1], max(len(c.numbers) for c in classes)
    rows = len(classes) * shown
    with plt.rc_context(STYLE):
        figure = plt.figure(figsize=(2.6 + 1.3 * width, 1.35 * rows + 0.7), layout="constrained")
        figure.suptitle(fill(heading, 20 + 16 * width))
        grid = figure.add_gridspec(rows, 1 + width, width_ratios=[2, *[1] * width])
        for place, of_class in enumerate(classes):
            top = place * shown
            axis = figure.add_subplot(grid[top : top + shown, 0])
            reached = "undefined" if np.isnan(of_class.r_squared) else f"= {of_class.r_squared:.2f}"
            axis.set_title(f"{of_class.name}\nR² {reached}")
            if of_class.mean is None:
                axis.set_axis_off()
                axis.text(0.5, 0.5, "not faithful", ha="center", va="center", transform=axis.transAxes)
            else:
                places = np.arange(len(of_class.numbers))[::-1]
                axis.barh(places, of_class.mean, xerr=of_class.error, color="#0072b2", ecolor="0.3")
                axis.set_yticks(places, [f"x{number}" for number in of_class.numbers])
                axis.axvline(0, color="0.3", linewidth=1)
                axis.set_xlabel("contribution to the logit")
            for column, number in enumerate(of_class.numbers):
                for row in range(shown):
                    picture = figure.add_subplot(grid[top + row, 1 + column])
                    picture.imshow(overlay(of_class.images[column, row], of_class.maps[column, row]))
                    picture.set(xticks=[], yticks=[])
                    picture.set_xlabel(of_class.captions[column][row], fontsize=7)
                    if row == 0:
                        picture.set_title(f"x{number}")
    return figure
