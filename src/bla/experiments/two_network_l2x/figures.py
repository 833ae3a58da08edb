"""Pictures of two-network L2X: accuracies, and what the second network sees."""

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bla.experiments.two_network_l2x.experiment import Seen
from bla.experiments.two_network_l2x.tables import SHOWN
from bla.plotting.style import STYLE


def picture(runs: pd.DataFrame, seen: Mapping[str, Seen]) -> Figure:
    """For each dataset the accuracy of every run by reading and mask; below, what the second network of run 0 sees."""
    if not seen:
        figure = plt.figure(figsize=(6, 1))
        figure.suptitle("None of two_network_l2x.datasets is among the datasets that ran")
        return figure
    heights = [size for part in seen.values() for size in (3.0, 0.95 * (1 + 2 * len(part.soft)) + 0.4)]
    width = max(8.0, max(0.95 * len(part.images) + 2.2 for part in seen.values()))
    with plt.rc_context(STYLE), sns.axes_style("whitegrid"):
        figure = plt.figure(figsize=(width, sum(heights)), layout="constrained")
        parts: Any = figure.subfigures(len(heights), 1, height_ratios=heights)
        for number, (dataset, part) in enumerate(seen.items()):
            _accuracies(parts[2 * number].subplots(), runs[runs["dataset"] == dataset])
            _what_is_seen(parts[2 * number + 1], part)
    return figure


def _accuracies(axis: Any, runs: pd.DataFrame) -> None:
    colours = dict(zip(SHOWN, sns.color_palette("colorblind", len(SHOWN)), strict=True))
    markers = dict(zip(SHOWN, "osD^", strict=True))
    readings = list(dict.fromkeys(runs["reading"]))
    for place, reading in enumerate(readings):
        runs_of_reading = runs[runs["reading"] == reading]
        for step, name in enumerate(SHOWN):
            middle = place + (step - 1.5) * 0.2
            across = middle + np.linspace(-0.06, 0.06, len(runs_of_reading))
            look = {"s": 18, "marker": markers[name], "color": colours[name], "edgecolor": "0.2", "linewidth": 0.3}
            axis.scatter(across, runs_of_reading[f"{name}_accuracy"], zorder=3, **look)
            axis.hlines(
                runs_of_reading[f"{name}_accuracy"].mean(), middle - 0.08, middle + 0.08, color="0.2", linewidth=1
            )
    chance = 1 / runs["n_classes"].iloc[0]
    axis.axhline(chance, color="0.25", linestyle="--", linewidth=1)
    count = runs.groupby("reading").size().min()
    axis.set_xticks(range(len(readings)), [name.replace("_", "\n", 1).replace("_", " ") for name in readings])
    axis.grid(visible=False, axis="x")
    axis.set(ylabel="accuracy (share of images)", ylim=(min(chance, runs["random_accuracy"].min()) - 0.04, 1.02))
    axis.set_title(f"{runs['dataset'].iloc[0]} (n = {count} runs, {runs['n_images'].iloc[0]} images)")
    handles: list[Any] = [
        Line2D([], [], marker=markers[name], color=colours[name], linestyle="", label=label)
        for name, label in SHOWN.items()
    ]
    handles += [Line2D([], [], color="0.25", linestyle="--", label="chance")]
    axis.legend(handles=handles, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)


def _what_is_seen(figure: Any, seen: Seen) -> None:
    rows = [("input", seen.images)]
    for name in seen.soft:
        title = name.replace("_", " ")
        rows += [(f"{title}\nsoft", seen.soft[name]), (f"{title}\nhard", seen.hard[name])]
    axes = figure.subplots(len(rows), len(seen.images), squeeze=False)
    for line, (label, images) in zip(axes, rows, strict=True):
        line[0].set_ylabel(label, rotation=0, ha="right", va="center")
        for axis, image in zip(line, images, strict=True):
            axis.imshow(image)
            axis.set(xticks=[], yticks=[])
            axis.grid(visible=False)
    figure.suptitle("what the second network of run 0 sees, at its true brightness", fontsize=9)
