"""Pictures of what each unstated choice changes."""

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bla.base.paper import COLUMNS
from bla.plotting.style import STYLE


def choices(effects: pd.DataFrame) -> Figure:
    """The main effects of `tables.effects` with 95 % intervals, a row per dataset.

    A panel per measure; choices from top to bottom, columns in colours.
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
                of_panel = main[(main["dataset"] == dataset) & (main["measure"] == measure)]
                for place, label in enumerate(labels):
                    group = of_panel[of_panel["label"] == label]
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
            figure.suptitle("None of unstated_choices.datasets is among the datasets that ran")
    return figure
