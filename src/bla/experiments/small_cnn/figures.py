"""The small CNN's accuracy, run by run, and run 0's explanations of some digits."""

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from numpy.typing import NDArray

from bla.base.paper import COLUMNS
from bla.inference.paired import standard_error
from bla.plotting.overlay import overlay
from bla.plotting.style import STYLE

POOLINGS = {"mean": "map averaged (16 numbers)", "flat": "map as it is (784 numbers)"}


def picture(runs: pd.DataFrame, images: NDArray[np.uint8], hard: Mapping[str, NDArray[np.float64]]) -> Figure:
    """Accuracy of every run by column and pooling; below, digits `[M, 28, 28, 3]` and run 0's explanations `[M, 7, 7]`."""
    count = len(images)
    colours = dict(zip(("bl", "bla_t"), sns.color_palette("colorblind", 2), strict=True))
    with plt.rc_context(STYLE), sns.axes_style("whitegrid"):
        figure = plt.figure(figsize=(1.3 * count, 3.2 + 1.45 * (1 + len(hard))), layout="constrained")
        parts: Any = figure.subfigures(2, 1, height_ratios=(2.6, 1.45 * (1 + len(hard))))
        above, below = parts
        for axis, (pooling, group) in zip(above.subplots(1, len(hard), squeeze=False)[0], runs.groupby("pooling", sort=False), strict=True):  # fmt: skip
            for place, (column, values) in enumerate(group.groupby("column", sort=False)["accuracy"]):
                across = place + np.linspace(-0.25, 0.25, len(values))
                axis.scatter(across, values, s=12, color=colours[str(column)], edgecolor="0.2", linewidth=0.3)
                error = float(standard_error(values.to_numpy(float)))
                axis.errorbar(place + 0.38, values.mean(), error, color="0.2", marker="_", capsize=2)
            axis.set_xticks(range(2), [COLUMNS[column] for column in colours])
            axis.set(
                ylabel="accuracy",
                title=f"{POOLINGS[str(pooling)]}: n = {len(group) // 2} runs, {group['n_images'].iloc[0]} images",
            )
        axes = below.subplots(1 + len(hard), count, squeeze=False)
        for number, image in enumerate(images):
            axes[0, number].imshow(image)
            for row, cells in enumerate(hard.values(), start=1):
                axes[row, number].imshow(overlay(image, cells[number]))
                axes[row, number].set_xlabel(f"{int(cells[number].sum())} cells")
        for row, label in enumerate(("input", *(POOLINGS[pooling].partition(" (")[0] for pooling in hard))):
            axes[row, 0].set_ylabel(label)
        for axis in axes.flat:
            axis.set(xticks=[], yticks=[])
            axis.grid(visible=False)
    return figure
