"""Pictures of minimal sufficient explanations: an image's graph, and hard explanations beside minimal ones."""

from textwrap import fill

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from bla.experiments.related_methods.structure.graph import MOST_SHOWN, Graph
from bla.experiments.related_methods.structure.measures import COVER
from bla.plotting.style import STYLE

Array = NDArray[np.float64]
BANDS = ((0.9, "#0072b2"), (0.5, "#e69f00"), (-np.inf, "#d55e00"))
"""Smallest relative confidence and colour of a node's frame."""
COVER_COLOURS = ("#0072b2", "#56b4e9", "#e69f00", "#cccccc", "#eeeeee")
SUFFICIENT, CHOICE = "sufficient", "same_choice"
"""The quantities of the chart."""
WIDTH = 4.8
"""Inches of the chart; at 100 pixels an inch hardly wider than a phone, so that its text is not shrunk."""


def drawn_graph(image: NDArray[np.uint8], masks: Array, graph: Graph, title: str) -> Figure:
    """The graph from its roots down: each node is the photo `[H, W, 3]` with its patches alone, under its mask `[H, W]`.

    The frame is blue from 90 %, yellow from 50 % and red below; an edge names the patch that is taken away.
    """
    sizes = sorted({len(cells) for cells in graph.nodes}, reverse=True)
    layers = [[i for i, cells in enumerate(graph.nodes) if len(cells) == size] for size in sizes]
    width = max(map(len, layers))
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(max(4.0, 1.25 * width), 1.75 * len(layers) + 0.4), layout="constrained")
        places = {
            i: (x - (len(layer) - 1) / 2, -1.45 * y) for y, layer in enumerate(layers) for x, i in enumerate(layer)
        }
        for parent, child, cell in graph.edges:
            (x, y), (u, v) = places[parent], places[child]
            axis.plot([x, u], [y - 0.55, v + 0.41], color="0.6", linewidth=1, zorder=0)
            share = 0.35
            axis.text(x + share * (u - x), y - 0.55 + share * (v + 0.96 - y), f"−{cell}", fontsize=7, ha="center", va="center", color="0.2", bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5})  # fmt: skip
        for i, (x, y) in places.items():
            shown = np.round(image * masks[i][..., None]).astype(np.uint8)
            axis.imshow(shown, extent=(x - 0.4, x + 0.4, y - 0.4, y + 0.4), zorder=1)
            value = graph.confidences[i]
            colour = next(colour for lowest, colour in BANDS if value >= lowest)
            axis.add_patch(Rectangle((x - 0.4, y - 0.4), 0.8, 0.8, fill=False, edgecolor=colour, linewidth=2.5, zorder=2))  # fmt: skip
            axis.text(
                x,
                y - 0.48,
                graph.star(i) + (f"{value:.0%}" if value <= MOST_SHOWN else f"> {MOST_SHOWN:.0%}"),
                fontsize=7,
                ha="center",
                va="center",
            )
        axis.set(
            xlim=(-width / 2, width / 2), ylim=(-1.45 * (len(layers) - 1) - 0.65, 0.5), aspect="equal", title=title
        )
        axis.set_axis_off()
    return figure


def chart(hard: pd.DataFrame, relations: pd.DataFrame) -> Figure:
    """Per dataset: the share of hard explanations that suffice, what they cover, and the runs that choose one set.

    `hard` is the table of that name; `relations` has the share of each of `COVER` by dataset, title and set ("hard",
    "random"). Panels are stacked, so that the chart is readable on a phone.
    """
    datasets = list(dict.fromkeys(hard["dataset"]))
    with plt.rc_context(STYLE), sns.axes_style("whitegrid"):
        count = max(1, len(datasets))
        height = 3.1 * count + 1.8 * len(hard.groupby(["dataset", "method"]))
        figure, axes = plt.subplots(3 * count, 1, figsize=(WIDTH, height), height_ratios=[2, 3, 2] * count, layout="constrained")  # fmt: skip
        for (first, second, third), dataset in zip(axes.reshape(count, 3), datasets, strict=False):
            of_dataset = hard[hard["dataset"] == dataset]
            _beside(first, of_dataset[of_dataset["quantity"] == SUFFICIENT], f"{dataset}\nshare that suffices alone")
            _covered(second, relations[relations["dataset"] == dataset], f"{dataset}\nminimal explanations within it")
            _beside(third, of_dataset[of_dataset["quantity"] == CHOICE], f"{dataset}\nother runs with the same set")
    return figure


def _beside(axis: Axes, rows: pd.DataFrame, title: str) -> None:
    """Means with intervals of hard explanations and of random sets of the same size."""
    places = np.arange(len(rows))[::-1]
    for shift, colour, label, names in ((0.12, "#0072b2", "hard explanation", ("mean", "low", "high")), (-0.12, "0.55", "random cells, as many", ("random", "random_low", "random_high"))):  # fmt: skip
        middle, low, high = (rows[name].to_numpy(float) for name in names)
        axis.errorbar(middle, places + shift, xerr=np.maximum(0, [middle - low, high - middle]), fmt="o", color=colour, label=label)  # fmt: skip
    axis.set_yticks(places, [f"{r.title}\n{r.n_runs} runs, {r.n_images} images" for r in rows.itertuples()])
    axis.set(xlim=(-0.02, 1.02), ylim=(-0.5, max(1, len(rows)) - 0.5), title=title)
    _legend_below(axis)


def _covered(axis: Axes, rows: pd.DataFrame, title: str) -> None:
    """Stacked shares of what the sets cover of the minimal explanations."""
    names = [fill(f"{row.title}, {row.set} (n = {row.n})", 24) for row in rows.itertuples()]
    places, left = np.arange(len(rows))[::-1], np.zeros(len(rows))
    for name, colour in zip(COVER, COVER_COLOURS, strict=True):
        axis.barh(places, rows[name], left=left, color=colour, label=name, edgecolor="white")
        left += rows[name].to_numpy(float)
    axis.set_yticks(places, names, fontsize=8)
    axis.set(xlim=(0, 1), title=title)
    _legend_below(axis)


def _legend_below(axis: Axes) -> None:
    axis.legend(ncols=2, fontsize=8, loc="upper center", bbox_to_anchor=(0.4, 0), borderaxespad=2.5)
