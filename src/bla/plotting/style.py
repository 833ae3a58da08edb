"""The paper's pictures: Figure 3, and the explanations of Figures 2 and 12 to 23.

Colours are seaborn's colour-blind palette, viridis for logits and weights, and Turbo for the overlay, as in the paper.
Files carry no date, so that equal pictures are equal bytes.
"""

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from bla.base.paper import COLUMNS

STYLE: Any = {"svg.hashsalt": "bla", "svg.fonttype": "none", "font.size": 9, "axes.titlesize": 9, "savefig.dpi": 100}


def save_figure(figure: Figure, path: Path, kind: str) -> None:
    """Write a figure without its date, as `kind` (png or svg), and close it."""
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    with plt.rc_context(STYLE):
        figure.savefig(path, format=kind, metadata=metadata, facecolor="white")
    plt.close(figure)


def figure_three(runs: pd.DataFrame) -> Figure:
    """Figure 3: error rate and loss of every run, by column, one panel a dataset; BL's median is a dashed line."""
    datasets = list(dict.fromkeys(runs["dataset"]))
    runs = runs.assign(error_rate=1 - runs["accuracy"], column=[COLUMNS.get(v, v) for v in runs["variant"]])
    baseline, shown = runs[runs["variant"] == "bl"], runs[runs["variant"] != "bl"]
    order = list(dict.fromkeys(shown["column"]))
    palette = dict(zip(order, sns.color_palette("colorblind", len(order)), strict=True))
    with plt.rc_context(STYLE), sns.axes_style("whitegrid"):
        figure, axes = plt.subplots(
            2, len(datasets), figsize=(4.2 * len(datasets), 6), squeeze=False, layout="constrained"
        )
        for row, (measure, label) in enumerate((("error_rate", "error rate"), ("loss", "loss (nats)"))):
            for axis, dataset in zip(axes[row], datasets, strict=True):
                own = shown[shown["dataset"] == dataset]
                sns.boxplot(own, x="column", y=measure, order=order, hue="column", palette=palette, ax=axis, showfliers=False, boxprops={"alpha": 0.35}, width=0.6)  # fmt: skip
                _swarm(axis, own, measure, order, palette)
                median = float(baseline[baseline["dataset"] == dataset][measure].median())
                axis.axhline(median, color="0.25", linestyle="--", linewidth=1)
                axis.annotate("BL", (1, median), xycoords=("axes fraction", "data"), xytext=(3, 0), textcoords="offset points", va="center", color="0.25")  # fmt: skip
                count = own.groupby("column").size().min()
                axis.set(xlabel="", ylabel=label, title=f"{dataset} (n = {count} runs)")
    return figure


def _swarm(axis: Any, runs: pd.DataFrame, measure: str, order: list[str], palette: dict[str, Any]) -> None:
    """Every run as a dot, spread evenly from left to right by its number, so that none hides another."""
    for place, column in enumerate(order):
        values = runs[runs["column"] == column][measure].to_numpy()
        across = place + np.linspace(-0.22, 0.22, len(values))
        axis.scatter(across, values, s=9, color=palette[column], edgecolor="0.2", linewidth=0.3, zorder=3)


def choices(effects: pd.DataFrame) -> Figure:
    """What each choice of `bla.experiments.unstated_choices.tables.effects` changes in each column, with 95 % intervals: a row a dataset.

    Main effects alone; one panel a measure, the choices from top to bottom, the columns side by side in colours.
    """
    main = effects[effects["setting"] == "all"]
    main = main.assign(label=main["choice"].str.replace("_", " ") + ":\n" + main["reference"] + " → " + main["other"])
    datasets, labels = list(dict.fromkeys(main["dataset"])), list(dict.fromkeys(main["label"]))
    columns = list(dict.fromkeys(main["column"]))
    colours = dict(zip(columns, sns.color_palette("colorblind", len(columns)), strict=True))
    markers = dict(zip(columns, "osD^vP*X<>hd", strict=False))
    titles = {"accuracy": "accuracy", "loss": "loss (nats)", "explanation_size": "explanation size (cells)"}
    rows, height = max(1, len(datasets)), 0.75 * max(4, len(labels))
    with plt.rc_context(STYLE), sns.axes_style("whitegrid"):
        figure, axes = plt.subplots(rows, 3, figsize=(12, 1 + height * rows), squeeze=False, layout="constrained")
        for line, dataset in zip(axes, datasets, strict=False):
            for axis, (measure, title) in zip(line, titles.items(), strict=True):
                own = main[(main["dataset"] == dataset) & (main["measure"] == measure)]
                for place, label in enumerate(labels):
                    group = own[own["label"] == label]
                    for step, (_, row) in enumerate(group.iterrows()):
                        at = place + (step - (len(group) - 1) / 2) * 0.08
                        reach = row["high"] - row["difference"]
                        look = {"marker": markers[row["column"]], "color": colours[row["column"]], "markersize": 4}
                        axis.errorbar(row["difference"], at, xerr=reach, linewidth=1, **look)
                axis.axvline(0, color="0.25", linewidth=1)
                axis.set(xlabel=f"change in {title}", ylim=(len(labels) - 0.5, -0.5))
                axis.set_yticks(range(len(labels)), labels if axis is line[0] else [""] * len(labels))
            line[1].set_title(f"{dataset} (n = {main.loc[main['dataset'] == dataset, 'n_runs'].max()} runs)")
        handles = [
            Line2D([], [], marker=markers[c], color=colours[c], linestyle="", label=COLUMNS.get(c, c)) for c in columns
        ]
        if datasets:
            figure.legend(handles=handles, loc="outside lower center", ncols=5, title="column")
        else:
            figure.suptitle("None of fidelity.datasets is among the datasets that ran")
    return figure


def overlay(image: NDArray[np.uint8], hard: NDArray[np.float64]) -> NDArray[np.float64]:
    """Half image, half Turbo colours of the hard mask `[h, w]` scaled to its maximum and upsampled bilinearly.

    Returns `[H, W, 3]` in [0, 1] for a uint8 image `[H, W, 3]` (paper, section 3.2; half and half as in the code).
    """
    large = _upsample(hard / max(hard.max(), 1e-12), image.shape[0])  # pointwise attention may keep no cell
    colours = matplotlib.colormaps["turbo"](large)[..., :3]
    mixed: NDArray[np.float64] = 0.5 * image / 255 + 0.5 * colours
    return mixed


def _upsample(small: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Bilinear from `[h, w]` to `[size, size]`, cells centred, edges held."""
    result = small
    for axis, count in enumerate(small.shape):
        at = np.clip((np.arange(size) + 0.5) * count / size - 0.5, 0, count - 1)
        low = np.floor(at).astype(int)
        share = at - low
        shape = (-1, 1) if axis == 0 else (1, -1)
        result = np.take(result, low, axis) * (1 - share).reshape(shape) + np.take(
            result, np.minimum(low + 1, count - 1), axis
        ) * share.reshape(shape)
    return result


def explanations(
    images: NDArray[np.uint8],
    logits: NDArray[np.float64],
    soft: NDArray[np.float64],
    hard: NDArray[np.float64],
    captions: list[str],
    heading: str,
    own_scale: bool = False,
) -> Figure:
    """One column an image: input, logits with their colour bar, soft weights, hard cells, overlay.

    `images` uint8 `[M, H, W, 3]`; the maps `[M, h, w]`. The paper's "soft" pictures show the logits, not q: both are drawn.
    With `own_scale` every image has a colour bar of its own, where logits of different images lie far apart.
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


def overview(images: NDArray[np.uint8], hard: dict[str, NDArray[np.float64]], captions: list[str]) -> Figure:
    """The same images under every column: the input, then each column's overlay; one column an image."""
    count = len(images)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1 + len(hard), count, figsize=(1.5 * count, 1.55 * (1 + len(hard))), squeeze=False, layout="constrained")  # fmt: skip
        for i in range(count):
            axes[0, i].imshow(images[i])
            axes[0, i].set_title(captions[i])
            for row, masks in enumerate(hard.values(), start=1):
                axes[row, i].imshow(overlay(images[i], masks[i]))
                kept = int(masks[i].sum())
                axes[row, i].set_xlabel(f"{kept} cell" + "s" * (kept != 1))
        for row, label in enumerate(("input", *(COLUMNS.get(v, v) for v in hard))):
            axes[row, 0].set_ylabel(label)
        _bare(axes)
    return figure


def _limits(values: NDArray[np.float64]) -> tuple[float, float]:
    return float(values.min()), float(values.max())


def _bare(axes: NDArray[Any]) -> None:
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
