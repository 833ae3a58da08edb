"""Pictures of the agreement over runs: every method's agreement, and cell by cell what the runs do."""

from collections.abc import Mapping, Sequence
from textwrap import fill

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from numpy.typing import NDArray

from bla.plotting.style import STYLE

Array = NDArray[np.float64]
PANELS = ("mean weight", "spread over runs", "share of runs that keep it")


def chart(table: pd.DataFrame) -> Figure:
    """Agreement of each method with its 95 % interval, a panel per dataset; 0 is chance."""
    datasets = list(dict.fromkeys(table["dataset"]))
    with plt.rc_context(STYLE), sns.axes_style("whitegrid"):
        height = 1.2 + 0.35 * table.groupby("dataset").size().max() if len(table) else 2
        figure, axes = plt.subplots(1, max(1, len(datasets)), figsize=(4.6 * max(1, len(datasets)) + 1, height), squeeze=False, sharex=True, layout="constrained")  # fmt: skip
        for axis, (dataset, rows) in zip(axes[0], table.groupby("dataset", sort=False), strict=False):
            places = np.arange(len(rows))[::-1]
            reach = np.abs(rows[["low", "high"]].to_numpy(float).T - rows["agreement"].to_numpy(float))
            axis.errorbar(rows["agreement"], places, xerr=reach, fmt="o", color="#0072b2", elinewidth=2)
            axis.set_yticks(places, [f"{row.title} ({row.n_runs} runs)" for row in rows.itertuples()])
            axis.axvline(0, color="0.3", linewidth=1)
            axis.set(xlim=(min(-0.05, float(rows["low"].min()) - 0.02), 1), xlabel="agreement over runs (0: chance)", title=f"{dataset}, {rows['n_images'].iloc[0]} images; bars: 95 %")  # fmt: skip
    return figure


def cell_by_cell(
    images: NDArray[np.uint8], soft: Mapping[str, Array], hard: Mapping[str, Array], titles: Mapping[str, str], captions: Sequence[str]
) -> Figure:  # fmt: skip
    """For each image and method three maps over the runs: mean and standard deviation of the weights, and share that keep a cell.

    `images` uint8 `[M, H, W, 3]`; `soft` and `hard` (0 or 1) `[R, M, h, w]` by method. Weights are scaled by the
    largest of their image and run, so that methods share one scale.
    """
    count = len(images)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1 + len(soft), 3 * count, figsize=(3.3 * count + 1.2, 1.25 * (1 + len(soft)) + 0.6), squeeze=False, layout="constrained")  # fmt: skip
        for axis in axes.flat:
            axis.set(xticks=[], yticks=[])
        for i in range(count):
            for panel in range(3):
                axes[0, 3 * i + panel].set_axis_off()
                axes[1, 3 * i + panel].set_title(PANELS[panel], fontsize=7)
            axes[0, 3 * i + 1].imshow(images[i])
            axes[0, 3 * i + 1].set_title(captions[i])
        for row, key in enumerate(soft, start=1):
            scaled = soft[key] / np.maximum(soft[key].max(axis=(2, 3), keepdims=True), np.finfo(float).tiny)
            for i in range(count):
                maps = scaled[:, i].mean(axis=0), scaled[:, i].std(axis=0), hard[key][:, i].mean(axis=0)
                for panel, values in enumerate(maps):
                    drawn = axes[row, 3 * i + panel].imshow(values, cmap="viridis", vmin=0, vmax=1)
            axes[row, 0].set_ylabel(f"{fill(titles[key], 14)}\n{len(scaled)} runs", fontsize=7)
        if len(soft):
            figure.colorbar(drawn, ax=axes[1:, -1].tolist(), shrink=0.6)
    return figure
