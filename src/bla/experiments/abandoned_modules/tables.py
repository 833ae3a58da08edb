"""The two explanation modules that the paper tried and gave up: with more context than BLA's softmax gives, and with none.

A *concept vector* g of the whole image is added to every cell, l_i = min(u.(g + f_i) + b, 0). Since u.(g + f_i) = u.f_i + u.g,
all that it does is to move an image's scores together by one number, u.g. A softmax does not feel that, and far below the
bound nothing else does: no logit is bounded there, two are hardly ever equal, and the explanation is a single cell.
*Pointwise attention* gives each cell a sigmoid of its own, so that no cell takes weight from another.

    run_table(result)                     # a row a run, of `bla.method.training.evaluate`
    against_bla(runs, ...)                # run r of each against run r of BLA, which starts from the same head

Source: Baumhauer et al. 2021, section 3.3 and Figure 24, after Jetley et al. 2018, Park et al. 2018 and Woo et al. 2018.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from bla.experiments.runs import PAIRED, paired
from bla.inference.paired import holm
from bla.method.modules import Evaluation
from bla.plotting.figures import STYLE

NAMES = {"bla": "BLA", "concept_vector": "concept vector (linear)", "concept_vector_relu": "concept vector (ReLU)"} | {
    "pointwise": "pointwise attention"
}
"""How pictures call the modules of params.yaml."""
MEASURES = ["accuracy", "loss", "soft_accuracy", "soft_loss", "explanation_size", "share_one_cell", "share_empty"]
LOGITS = ["smallest_logit", "median_largest_logit", "largest_logit"]


def run_table(result: Evaluation) -> pd.DataFrame:
    """A row a run: accuracy and loss with hard and soft explanations, their size, and how far the logits reach.

    `share_one_cell` and `share_empty` are shares of images; `median_largest_logit` is the median over images of the largest
    logit of each.
    """
    explained = result.explained
    assert explained is not None
    table = pd.DataFrame({"n_images": result.correct.shape[1]}, range(len(result.correct)))
    table["accuracy"] = result.correct.double().mean(dim=1).numpy()
    table["loss"] = result.loss.double().mean(dim=1).numpy()
    table["soft_accuracy"] = explained.correct.double().mean(dim=1).numpy()
    table["soft_loss"] = explained.loss.double().mean(dim=1).numpy()
    size = explained.hard.sum(dim=2).double()
    table["explanation_size"] = size.mean(dim=1).numpy()
    table["share_one_cell"] = (size == 1).double().mean(dim=1).numpy()
    table["share_empty"] = (size == 0).double().mean(dim=1).numpy()
    largest = explained.logits.amax(dim=2).double().numpy()
    table["smallest_logit"] = explained.logits.amin(dim=(1, 2)).numpy()
    table["median_largest_logit"] = np.median(largest, axis=1)
    table["largest_logit"] = largest.max(axis=1)
    return table


def against_bla(runs: pd.DataFrame, resamples: int, seed: int) -> pd.DataFrame:
    """Every variant against `bla` on each dataset, paired by run, with Holm's p over the table.

    `runs` has a row a run with the columns dataset, variant, run, accuracy, loss and explanation_size.
    """
    rows = []
    for dataset, own in runs.groupby("dataset", sort=False):
        by_variant = {variant: part.sort_values("run") for variant, part in own.groupby("variant", sort=False)}
        bla = by_variant.pop("bla")
        for variant, part in by_variant.items():
            for name in ("accuracy", "loss", "explanation_size"):
                row: dict[str, object] = {"dataset": dataset, "variant": variant, "measure": name}
                rows.append(row | paired(part[name].to_numpy(float), bla[name].to_numpy(float), resamples, seed))
    table = pd.DataFrame(rows, columns=["dataset", "variant", "measure", *PAIRED])
    table["p_holm"] = holm(table["p"].to_numpy(float))
    return table


def picture(runs: pd.DataFrame) -> Figure:
    """Every run's explanation size, and the largest logits of its images: a row of panels a dataset."""
    datasets = list(dict.fromkeys(runs["dataset"]))
    with plt.rc_context(STYLE), sns.axes_style("whitegrid"):
        figure, axes = plt.subplots(max(1, len(datasets)), 2, figsize=(9, 3 * max(1, len(datasets))), squeeze=False, layout="constrained")  # fmt: skip
        for (left, right), dataset in zip(axes, datasets, strict=False):
            own = runs[runs["dataset"] == dataset]
            variants = list(dict.fromkeys(own["variant"]))
            for place, (variant, colour) in enumerate(zip(variants, sns.color_palette("colorblind"), strict=False)):
                part = own[own["variant"] == variant]
                across = place + np.linspace(-0.25, 0.25, len(part))
                for axis, measure in ((left, "explanation_size"), (right, "median_largest_logit")):
                    axis.scatter(part[measure], across, s=22, color=colour, edgecolor="0.2", linewidth=0.3)
            for axis in (left, right):
                axis.set_yticks(range(len(variants)), [NAMES.get(v, v) for v in variants])
                axis.invert_yaxis()
            count = f"n = {own['run'].nunique()} runs, {own['n_images'].iloc[0]} images"
            left.set(xlabel="explanation size, mean over images (cells)", title=f"{dataset} ({count})")
            right.set(xlabel="largest logit of an image,\nmedian over images", title="the bound is 0")
            right.set_xscale("symlog", linthresh=1)
            right.set_xlim(3 * own["median_largest_logit"].min() - 1, 0.5)
        if not datasets:
            figure.suptitle("None of alternatives.datasets is among the datasets that ran")
    return figure
