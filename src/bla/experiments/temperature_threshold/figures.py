"""Heat maps over temperature and threshold, with the settings where learning dies."""

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from bla.plotting.style import STYLE

PANELS = {
    "accuracy": ("accuracy", "{:.3f}"),
    "loss": ("loss (nats)", "{:.2f}"),
    "explanation_size": ("explanation size (cells)", "{:.1f}"),
    "iou": ("IoU of hard cells and object", "{:.2f}"),
}


def heat_maps(table: pd.DataFrame) -> Figure:
    """Four panels per dataset and threshold rule, one per measure; `table` is the `summary` of `tables`.

    Each cell shows the mean ± standard error over runs and, if runs died, their number: † at the bound, × cut.
    """
    kinds = list(table.groupby(["dataset", "threshold_rule"], sort=False))
    across, down = table["threshold_factor"].nunique(), table["temperature"].nunique()
    rows = max(2, 2 * len(kinds))
    size = 2 * max(4.5, 0.95 * across + 1.2), rows * max(2.4, 0.5 * down + 1.2)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(rows, 2, figsize=size, squeeze=False, layout="constrained")
        for line, ((dataset, rule), group) in zip(axes.reshape(-1, 4), kinds, strict=False):
            for axis, (measure, (title, form)) in zip(line, PANELS.items(), strict=True):
                cells = group.assign(text=[_text(row, measure, form) for _, row in group.iterrows()])
                values, annotation = (
                    cells.pivot(index="temperature", columns="threshold_factor", values=name)
                    for name in (measure, "text")
                )
                if values.isna().all(axis=None):
                    axis.set_axis_off()
                    axis.set_title(f"{title}: there are no masks")
                    continue
                sns.heatmap(values, annot=annotation, fmt="", cmap="viridis", ax=axis, annot_kws={"fontsize": 6.5})
                axis.set(xlabel="threshold · n", ylabel="temperature θ", title=title)
            runs, images = group["n_runs"].max(), group["n_images"].max()
            line[0].set_title(f"{dataset}, {rule} (n = {runs} runs, {images} images)\n{PANELS['accuracy'][0]}")
        figure.suptitle(
            "mean ± standard error over runs; runs that died: † all cells at the bound, × every weight cut"
            if kinds
            else "None of temperature_threshold.datasets is among the datasets that ran"
        )
    return figure


def _text(row: pd.Series, measure: str, form: str) -> str:
    died = "".join(f" {mark}{row[f'died_{how}']}" for how, mark in (("bound", "†"), ("cut", "×")) if row[f"died_{how}"])
    if pd.isna(row[measure]):
        return ""
    return f"{form.format(row[measure])}{died}\n±{form.format(row[f'{measure}_standard_error'])}"
