"""What the small CNN's runs did: tables, tests of runs that are no pairs, and a picture."""

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from numpy.typing import NDArray

from bla.base.paper import COLUMNS
from bla.experiments.runs import means
from bla.inference.paired import holm, standard_error
from bla.inference.unpaired import mann_whitney
from bla.method.modules import Evaluation
from bla.plotting.figures import STYLE, overlay

POOLINGS = {"mean": "map averaged (16 numbers)", "flat": "map as it is (784 numbers)"}
MEASURES = ["accuracy", "loss", "soft_accuracy", "soft_loss", "explanation_size"]
DEAD = ["share_at_bound", "share_without_weight"]


def run_table(result: Evaluation) -> pd.DataFrame:
    """A row a run: accuracy and loss, with hard and soft explanations, their size, and the share of dead images."""
    table = pd.DataFrame({"n_images": result.correct.shape[1]}, range(len(result.correct)))
    table["correct"] = result.correct.sum(dim=1).numpy()
    table["accuracy"] = result.correct.double().mean(dim=1).numpy()
    table["loss"] = result.loss.double().mean(dim=1).numpy()
    table[["soft_accuracy", "soft_loss", "explanation_size", *DEAD]] = np.nan
    if explained := result.explained:
        table["soft_accuracy"] = explained.correct.double().mean(dim=1).numpy()
        table["soft_loss"] = explained.loss.double().mean(dim=1).numpy()
        table["explanation_size"] = explained.hard.sum(dim=2).double().mean(dim=1).numpy()
        table["share_at_bound"] = (explained.logits == 0).all(dim=2).double().mean(dim=1).numpy()
        table["share_without_weight"] = (explained.soft.sum(dim=2) == 0).double().mean(dim=1).numpy()
    return table


def summary(runs: pd.DataFrame, paper: Mapping[str, float]) -> pd.DataFrame:
    """A row a column and pooling: means over runs, standard errors, and the paper's accuracy where it is on the same data."""
    table = means(runs, ["data", "pooling", "column"], [*MEASURES, *DEAD])
    return table.assign(paper_accuracy=[paper.get(str(column), np.nan) for column in table["column"]])


def differences(runs: pd.DataFrame, resamples: int, seed: int) -> pd.DataFrame:
    """BLA-T against BL, for each pooling: Mann-Whitney's U over runs, with Holm's p over the table."""
    rows = []
    for (data, pooling), own in runs.groupby(["data", "pooling"], sort=False):
        for name in ("accuracy", "loss"):
            x, y = (own.loc[own["column"] == column, name].to_numpy(float) for column in ("bla_t", "bl"))
            test = mann_whitney(x, y, resamples, seed)
            row = {"data": data, "pooling": pooling, "measure": name, "n_runs": len(x), "n_runs_bl": len(y)}
            row |= {"difference": test.difference, "low": test.interval.low, "high": test.interval.high}
            rows.append(row | {"rank_biserial": test.effect_size, "p": test.p})
    table = pd.DataFrame(rows)
    table["p_holm"] = holm(table["p"].to_numpy(float))
    return table


def picture(runs: pd.DataFrame, images: NDArray[np.uint8], hard: Mapping[str, NDArray[np.float64]]) -> Figure:
    """Accuracy of every run by column and pooling; below, digits `[M, 28, 28, 3]` and what run 0 keeps `[M, 7, 7]` of them."""
    count = len(images)
    colours = dict(zip(("bl", "bla_t"), sns.color_palette("colorblind", 2), strict=True))
    with plt.rc_context(STYLE), sns.axes_style("whitegrid"):
        figure = plt.figure(figsize=(1.3 * count, 3.2 + 1.45 * (1 + len(hard))), layout="constrained")
        parts: Any = figure.subfigures(2, 1, height_ratios=(2.6, 1.45 * (1 + len(hard))))
        above, below = parts
        for axis, (pooling, own) in zip(above.subplots(1, len(hard), squeeze=False)[0], runs.groupby("pooling", sort=False), strict=True):  # fmt: skip
            for place, (column, values) in enumerate(own.groupby("column", sort=False)["accuracy"]):
                across = place + np.linspace(-0.25, 0.25, len(values))
                axis.scatter(across, values, s=12, color=colours[str(column)], edgecolor="0.2", linewidth=0.3)
                error = float(standard_error(values.to_numpy(float)))
                axis.errorbar(place + 0.38, values.mean(), error, color="0.2", marker="_", capsize=2)
            axis.set_xticks(range(2), [COLUMNS[column] for column in colours])
            axis.set(
                ylabel="accuracy",
                title=f"{POOLINGS[str(pooling)]}: n = {len(own) // 2} runs, {own['n_images'].iloc[0]} images",
            )
        axes = below.subplots(1 + len(hard), count, squeeze=False)
        for number, image in enumerate(images):
            axes[0, number].imshow(image)
            for row, cells in enumerate(hard.values(), start=1):
                axes[row, number].imshow(overlay(image, cells[number]))
                axes[row, number].set_xlabel(f"{int(cells[number].sum())} cells")
        for row, label in enumerate(("input", *(POOLINGS[pooling].partition(" (")[0] for pooling in hard))):
            axes[row, 0].set_ylabel(label)
        for axis in axes.flat:
            axis.set(xticks=[], yticks=[])
            axis.grid(visible=False)
    return figure
