"""The figure of a sweep over temperatures and thresholds."""

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from bla.plotting.style import STYLE

LABELS = {"accuracy": "accuracy", "loss": "loss (nats)", "explanation_size": "explanation size (cells)"}


def sweep_figure(table: pd.DataFrame) -> Figure:
    """A row per dataset, a column per measure: its mean over runs against the temperature, a line per threshold factor.

    `table` has dataset, measure, temperature, threshold_factor and value, one row per combination.
    """
    datasets, measures = list(dict.fromkeys(table["dataset"])), [name for name in LABELS if name in set(table["measure"])]  # fmt: skip
    size = (3.4 * len(measures), 2.6 * len(datasets) + 0.5)
    with plt.rc_context(STYLE), sns.axes_style("whitegrid"):
        figure, axes = plt.subplots(len(datasets), len(measures), figsize=size, squeeze=False, layout="constrained")
        factors = sorted(set(table["threshold_factor"]))
        colours = dict(zip(factors, sns.color_palette("colorblind", len(factors)), strict=True))
        for row, dataset in enumerate(datasets):
            for axis, measure in zip(axes[row], measures, strict=True):
                shown = table[(table["dataset"] == dataset) & (table["measure"] == measure)]
                for factor, line in shown.groupby("threshold_factor"):
                    line = line.sort_values("temperature")
                    axis.plot(
                        line["temperature"], line["value"], marker="o", color=colours[factor], label=f"{factor:g}"
                    )
                axis.set(xscale="log", title=dataset, xlabel="temperature", ylabel=LABELS[measure])
                axis.set_xticks(
                    sorted(set(shown["temperature"])), [f"{t:g}" for t in sorted(set(shown["temperature"]))]
                )
                axis.minorticks_off()
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, title="threshold\nfactor", loc="outside right center")
        figure.suptitle("BLA-T: means over runs")
    return figure
