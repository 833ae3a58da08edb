"""Figures 4 and 7 to 11: preferences beside the published shares, and who answered."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bla.experiments.explanations.user_study.protocol import OTHERS, TITLES
from bla.experiments.explanations.user_study.tables import ALL
from bla.plotting.maps import sentence
from bla.plotting.style import STYLE

NO_ANSWERS = "no answers yet: see docs/user_study.md"
PEOPLE = {
    "figure8": ("gender", "Gender"),
    "figure9": ("age", "Age [years]"),
    "figure10": ("ml", "I have technical experience with ML/AI"),
    "figure11": ("xai", "I have technical experience with XAI"),
}
"""The paper's figures of the participants: the question in the table of demographics, and the title."""
OURS, PAPERS = "#0072b2", "#bbbbbb"


def figure_four(preferences: pd.DataFrame) -> Figure:
    """Preferences over all datasets, a panel per comparison, beside the paper's Figure 4."""
    return _panels(preferences[preferences["dataset"] == ALL], "Figure 4")


def figure_seven(preferences: pd.DataFrame) -> Figure:
    """Preferences over all datasets and on each, a row per comparison, as in the paper's Figure 7, whose numbers are not printed."""
    return _panels(preferences, "Figure 7")


def _panels(preferences: pd.DataFrame, name: str) -> Figure:
    if preferences.empty:
        return sentence(f"{name}: {NO_ANSWERS}")
    datasets = list(dict.fromkeys(preferences["dataset"]))
    groups = dict(list(preferences.groupby(["against", "dataset"], sort=False)))
    rows, columns = (1, len(OTHERS)) if len(datasets) == 1 else (len(OTHERS), len(datasets))
    with plt.rc_context(STYLE), sns.axes_style("whitegrid"):
        figure, axes = plt.subplots(rows, columns, figsize=(3.3 * columns, 2.7 * rows + 0.4), squeeze=False, sharey=True, layout="constrained")  # fmt: skip
        for axis, (against, dataset) in zip(axes.flat, ((a, d) for a in OTHERS for d in datasets), strict=True):
            _preference_bars(axis, groups[against, dataset])
            axis.set_title(f"{'all datasets' if dataset == ALL else dataset}: n = {groups[against, dataset]['n_persons'].iloc[0]} persons")  # fmt: skip
        for axis in axes[:, 0]:
            axis.set_ylabel("share of answers")
        axes[0, 0].legend(fontsize=7, loc="upper right")
    return figure


def _preference_bars(axis: Axes, table: pd.DataFrame) -> None:
    """Our shares with 95 % intervals, and the published ones where there are any."""
    places, against = np.arange(len(table)), str(table["against"].iloc[0])
    shares = table["share"].to_numpy(float)
    beside = table["published"].notna().all()
    shift = 0.2 if beside else 0.0
    axis.bar(places - shift, shares, 0.38, color=OURS, label="here, 95 % interval")
    error = np.abs(table[["low", "high"]].to_numpy(float).T - shares)
    if np.isfinite(error).all():
        axis.errorbar(places - shift, shares, error, fmt="none", color="0.2", capsize=2)
    if beside:
        axis.bar(places + shift, table["published"], 0.38, color=PAPERS, label="Baumhauer et al. 2021")
    other = {"other_image": "another\nimage's"}.get(against, TITLES[against])
    titles = zip(("BLA-T", other, "equally\nreasonable"), shares, strict=True)
    axis.set_xticks(places, [f"{share:.0%}\n{title}" for title, share in titles])
    axis.set(ylim=(0, 1))
    axis.grid(visible=False, axis="x")


def participants(demographics: pd.DataFrame, name: str) -> Figure:
    """Number of persons by their answer to one question; `name` is a key of `PEOPLE`."""
    question, title = PEOPLE[name]
    counts = demographics[demographics["question"] == question]
    heading = f"Figure {name.removeprefix('figure')}"
    if counts.empty:
        return sentence(f"{heading}: {NO_ANSWERS}")
    with plt.rc_context(STYLE), sns.axes_style("whitegrid"):
        figure, axis = plt.subplots(figsize=(6, 2.8), layout="constrained")
        places = np.arange(len(counts))
        axis.bar(places, counts["persons"], 0.7, color=OURS)
        axis.set_xticks(places, [str(answer).replace(" ", "\n") for answer in counts["answer"]])
        axis.set(ylabel="persons", title=f"{title}: n = {counts['persons'].sum()} persons")
        axis.yaxis.set_major_locator(MaxNLocator(integer=True))
        axis.grid(visible=False, axis="x")
    return figure
