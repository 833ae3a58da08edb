"""Figure 3: error rate and loss of every run."""

from textwrap import fill
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from scipy import stats

from bla.base.paper import COLUMNS
from bla.plotting.style import STYLE


def table_one_chart(table: pd.DataFrame) -> Figure:
    """Table 1 as a chart: mean and 95 % interval (Student's, over runs) of each column, a row per dataset.

    `table` is `bla.experiments.table1.tables.table_one`.
    """
    datasets, variants = list(dict.fromkeys(table["dataset"])), list(dict.fromkeys(table["variant"]))
    labels = {"accuracy": "accuracy (higher is better)", "loss": "loss (nats, lower is better)", "explanation_size": "explanation size (cells)"}  # fmt: skip
    colours = dict(zip(variants, sns.color_palette("colorblind", len(variants)), strict=True))
    size = (11, 0.27 * len(variants) * len(datasets) + 0.6 * len(datasets) + 0.5)
    with plt.rc_context(STYLE), sns.axes_style("whitegrid"):
        figure, axes = plt.subplots(len(datasets), 3, figsize=size, squeeze=False, layout="constrained", sharey=True)
        for line, dataset in zip(axes, datasets, strict=True):
            for axis, (measure, label) in zip(line, labels.items(), strict=True):
                rows = table[(table["dataset"] == dataset) & (table["measure"] == measure)].set_index("variant")
                for variant, row in rows.iterrows():
                    reach = stats.t.ppf(0.975, row["n_runs"] - 1) * row["standard_error"] if row["n_runs"] > 1 else None
                    axis.errorbar(row["mean"], variants.index(variant), xerr=reach, marker="o", markersize=5, capsize=3, color=colours[variant])  # fmt: skip
                    axis.annotate(f"{row['mean']:.3g}", (row["mean"], variants.index(variant)), xytext=(0, 5), textcoords="offset points", ha="center", fontsize=7)  # fmt: skip
                axis.set(ylim=(len(variants) - 0.4, -0.8), xlabel=label)
                axis.margins(x=0.12)
            line[0].set_yticks(range(len(variants)), [COLUMNS.get(variant, variant) for variant in variants])
            line[0].set_title(f"{dataset} (n = {table.loc[table['dataset'] == dataset, 'n_runs'].max()} runs; bars: 95 % intervals)", loc="left")  # fmt: skip
    return figure


def figure_three(runs: pd.DataFrame) -> Figure:
    """Figure 3: error rate and loss of every run, by column, a panel per dataset; BL's median is a dashed line."""
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
                runs_of_dataset = shown[shown["dataset"] == dataset]
                sns.boxplot(runs_of_dataset, x="column", y=measure, order=order, hue="column", palette=palette, ax=axis, showfliers=False, boxprops={"alpha": 0.35}, width=0.6)  # fmt: skip
                _swarm(axis, runs_of_dataset, measure, order, palette)
                median = float(baseline[baseline["dataset"] == dataset][measure].median())
                axis.axhline(median, color="0.25", linestyle="--", linewidth=1)
                axis.annotate("BL", (1, median), xycoords=("axes fraction", "data"), xytext=(3, 0), textcoords="offset points", va="center", color="0.25")  # fmt: skip
                count = runs_of_dataset.groupby("column").size().min()
                axis.set(xlabel="", ylabel=label, title=f"{dataset} (n = {count} runs)")
                axis.set_xticks(range(len(order)), [fill(name, 8, break_long_words=False) for name in order])
    return figure


def _swarm(axis: Any, runs: pd.DataFrame, measure: str, order: list[str], palette: dict[str, Any]) -> None:
    """A dot per run, spread from left to right by run number, so that no dot hides another."""
    for place, column in enumerate(order):
        values = runs[runs["column"] == column][measure].to_numpy()
        across = place + np.linspace(-0.22, 0.22, len(values))
        axis.scatter(across, values, s=9, color=palette[column], edgecolor="0.2", linewidth=0.3, zorder=3)
