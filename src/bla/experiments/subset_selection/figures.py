"""Median ranks of every run, and how often each feature is selected."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from bla.experiments.subset_selection.tables import METHODS
from bla.inference.paired import standard_error
from bla.plotting.style import STYLE


def picture(runs: pd.DataFrame, features: pd.DataFrame) -> Figure:
    """Above, the median rank of every run by set and method; below, selected shares by feature, of `tables.by_feature`."""
    sets, random = list(dict.fromkeys(runs["data"])), (features["feature"].max() + 1) / 2
    with plt.rc_context(STYLE):
        figure = plt.figure(figsize=(9, 7.5), layout="constrained")
        parts: Any = figure.subfigures(2, 1, height_ratios=(1, 1.35))
        colours = sns.color_palette("colorblind", len(METHODS))
        for axis, data in zip(parts[0].subplots(1, len(sets), sharey=True, squeeze=False)[0], sets, strict=True):
            group = runs[runs["data"] == data]
            for place, (method, colour) in enumerate(zip(METHODS, colours, strict=True)):
                values = group.loc[group["method"] == method, "median_rank"].to_numpy(float)
                across = place + np.linspace(-0.25, 0.25, len(values))
                axis.scatter(across, values, s=12, color=colour, edgecolor="0.2", linewidth=0.3)
                axis.errorbar(place + 0.38, values.mean(), standard_error(values), color="0.2", marker="_", capsize=2)
            ideal = (group["k"].iloc[0] + 1) / 2
            for height, text in ((ideal, "ideal"), (random, "random")):
                axis.axhline(height, color="0.5", linestyle="--", linewidth=0.8)
                axis.text(0.5, height, text, va="bottom", ha="center", color="0.35", fontsize=7)
            axis.set_xticks(range(len(METHODS)), list(METHODS.values()))
            axis.set(xlim=(-0.5, len(METHODS) - 0.4), title=data)
        parts[0].axes[0].set_ylabel("median rank of the relevant features")
        parts[0].suptitle(
            f"{len(values)} runs of each method, with mean ± standard error; {runs['n_samples'].iloc[0]} test samples"
        )
        _heat_map(parts[1].subplots(), features)
    return figure


def _heat_map(axis: Any, features: pd.DataFrame) -> None:
    """Share of test samples that select a feature, a row per set, case and method; relevant features have a frame."""
    rows = list(features.groupby(["data", "case", "method"], sort=False))
    shares = np.stack([group["selected"].to_numpy(float) for _, group in rows])
    labels = [_label(group) for _, group in rows]
    columns = [f"x{feature}" for feature in rows[0][1]["feature"]]
    sns.heatmap(shares, vmin=0, vmax=1, annot=True, fmt=".2f", cmap="viridis", ax=axis, annot_kws={"fontsize": 7},
                xticklabels=columns, yticklabels=labels)  # fmt: skip
    for row, (_, group) in enumerate(rows):
        for column in np.flatnonzero(group["relevant"]):
            axis.add_patch(
                Rectangle((column + 0.03, row + 0.05), 0.94, 0.9, fill=False, edgecolor="red", linewidth=1.2)
            )
    axis.set_title("share of test samples that select a feature (mean over runs); frames: relevant features")


def _label(group: pd.DataFrame) -> str:
    """Set and method of a row of the heat map."""
    data, method = group["data"].iloc[0], METHODS[group["method"].iloc[0]]
    return f"{data}, {method}"
