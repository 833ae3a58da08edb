"""The picture of explanation sizes: their distribution, by class, and against the prediction's confidence."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from bla.base.paper import COLUMNS
from bla.plotting.sheet import can_draw
from bla.plotting.style import STYLE


def sizes(bins: pd.DataFrame, classes: pd.DataFrame) -> Figure:
    """A row per dataset: share of images by size; mean size of each class; confidence and accuracy by size.

    `bins` and `classes` are the tables `per_bin` and `per_class` of `bla.experiments.explanation_size.tables`, with
    the additional columns dataset and variant. Bars are standard errors over runs.
    """
    datasets, variants = list(dict.fromkeys(bins["dataset"])), list(dict.fromkeys(bins["variant"]))
    colours = dict(zip(variants, sns.color_palette("colorblind", len(variants)), strict=True))
    markers = dict(zip(variants, "osD^vP*X<>hd", strict=False))
    with plt.rc_context(STYLE), sns.axes_style("whitegrid"):
        figure, axes = plt.subplots(max(1, len(datasets)), 3, figsize=(13, 1 + 3.4 * max(1, len(datasets))), squeeze=False, layout="constrained")  # fmt: skip
        for (shares, by_class, by_size), dataset in zip(axes, datasets, strict=False):
            bins_of_dataset, of_class = (table[table["dataset"] == dataset] for table in (bins, classes))
            names = list(dict.fromkeys(of_class["class"]))
            for step, variant in enumerate(variants):
                look: dict[str, Any] = {"color": colours[variant], "marker": markers[variant], "markersize": 4}
                look |= {"elinewidth": 0.8, "linewidth": 1.3}
                title = COLUMNS.get(variant, variant)
                line = bins_of_dataset[bins_of_dataset["variant"] == variant]
                middle = (line["low"] + line["high"]) / 2
                shares.errorbar(middle, line["share"], line["share_standard_error"], label=title, **look)
                spots = of_class[of_class["variant"] == variant]
                at = [names.index(name) + (step - (len(variants) - 1) / 2) * 0.15 for name in spots["class"]]
                by_class.errorbar(at, spots["mean"], spots["standard_error"], **look | {"linestyle": ""})
                by_size.errorbar(middle, line["confidence"], line["confidence_standard_error"], **look)
                by_size.errorbar(middle, line["accuracy"], line["accuracy_standard_error"], **look | {"linestyle": ":"})
            shares.set(xlabel="explanation size (cells)", ylabel="share of images", ylim=(0, None), title=dataset)
            by_class.set(xlabel="class", ylabel="mean size (cells)", ylim=(0, None))
            few = len(names) <= 20
            by_class.set_xticks(range(len(names)) if few else [], [_short(n, place) for place, n in enumerate(names)] if few else [], rotation=45 if max(map(len, names)) > 3 else 0)  # fmt: skip
            by_class.set_title(
                f"n = {_counts(of_class['n_images'])} images a class, {_counts(of_class['n_runs'])} runs"
            )
            by_size.set(xlabel="explanation size (cells)", ylabel="solid: mean confidence, dotted: accuracy")
            by_size.set_title(
                f"n = {_counts(bins_of_dataset.loc[bins_of_dataset['n_runs'] > 0, 'n_runs'])} runs; bars: standard errors over runs"
            )
        if datasets:
            handles, labels = axes[0, 0].get_legend_handles_labels()
            figure.legend(handles, labels, loc="outside lower center", ncols=6)
        else:
            figure.suptitle("No variant has explanations of varying size")
    return figure


def _short(name: str, place: int) -> str:
    """A name of at most 18 letters; its place in the table if the font lacks a letter."""
    if not can_draw(name):
        return f"class {place}"
    short = name if len(name) <= 18 else f"{name[:17]}…"
    return short.replace("$", r"\$")


def _counts(counts: pd.Series) -> str:
    low, high = (int(f(counts)) for f in (np.min, np.max)) if len(counts) else (0, 0)
    return str(low) if low == high else f"{low}–{high}"
