"""Picture of the planted bias: the mass of every method on the cue, for both classifiers."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from bla.experiments.related_methods.planted_bias.tables import MASS, SHARE
from bla.plotting.style import STYLE


def chart(table: pd.DataFrame) -> Figure:
    """A panel per dataset: mean mass on the cue ± standard error over images; the line is the cue's share of the area."""
    datasets = list(dict.fromkeys(table["dataset"]))
    with plt.rc_context(STYLE), sns.axes_style("whitegrid"):
        most = max((table[table["measure"] == MASS].groupby("dataset").size() // 2).max(), 1) if len(table) else 1
        figure, axes = plt.subplots(1, max(1, len(datasets)), figsize=(5 * max(1, len(datasets)) + 1, 1.6 + 0.3 * most), squeeze=False, layout="constrained")  # fmt: skip
        for axis, dataset in zip(axes[0], datasets, strict=False):
            of_dataset = table[table["dataset"] == dataset]
            used = of_dataset[of_dataset["measure"] == SHARE].iloc[0]
            control = of_dataset[(of_dataset["measure"] == MASS) & (of_dataset["against"] == "trained without the cue")]
            area = of_dataset[(of_dataset["measure"] == MASS) & (of_dataset["against"] == "share of area")]
            places = np.arange(len(control))[::-1]
            for shift, name, error, colour, label in (
                (0.12, "value", "standard_error", "#d55e00", "trained with the cue"),
                (-0.12, "other", "other_standard_error", "#0072b2", "trained without it"),
            ):
                axis.errorbar(control[name], places + shift, xerr=control[error], fmt="o", color=colour, label=label)
            axis.axvline(area["other"].mean(), color="0.3", linewidth=1, label="share of the area")
            axis.set_yticks(places, control["title"])
            axis.set(xlim=(0, None), xlabel=f"mass on the cue (mean ± standard error, n = {control['n_images'].max()} images)")  # fmt: skip
            axis.set_title(
                f"{dataset}: the cue raises the share predicted\nas its class from {used['other']:.0%} to {used['value']:.0%}"
            )
            axis.legend(fontsize=7)
    return figure
