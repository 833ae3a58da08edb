"""The abandoned modules, run by run: number of cells, and distance of the logits from the bound."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from bla.plotting.style import STYLE

NAMES = {"bla": "BLA", "concept_vector": "concept vector (linear)", "concept_vector_relu": "concept vector (ReLU)"} | {
    "pointwise": "pointwise attention"
}
"""Titles in pictures, by name in params.yaml."""


def picture(runs: pd.DataFrame) -> Figure:
    """Every run's explanation size, and the largest logits of its images; a row of panels per dataset."""
    datasets = list(dict.fromkeys(runs["dataset"]))
    with plt.rc_context(STYLE), sns.axes_style("whitegrid"):
        figure, axes = plt.subplots(max(1, len(datasets)), 2, figsize=(9, 3 * max(1, len(datasets))), squeeze=False, layout="constrained")  # fmt: skip
        for (left, right), dataset in zip(axes, datasets, strict=False):
            runs_of_dataset = runs[runs["dataset"] == dataset]
            variants = list(dict.fromkeys(runs_of_dataset["variant"]))
            for place, (variant, colour) in enumerate(zip(variants, sns.color_palette("colorblind"), strict=False)):
                part = runs_of_dataset[runs_of_dataset["variant"] == variant]
                across = place + np.linspace(-0.25, 0.25, len(part))
                for axis, measure in ((left, "explanation_size"), (right, "median_largest_logit")):
                    axis.scatter(part[measure], across, s=22, color=colour, edgecolor="0.2", linewidth=0.3)
            for axis in (left, right):
                axis.set_yticks(range(len(variants)), [NAMES.get(v, v) for v in variants])
                axis.invert_yaxis()
            count = f"n = {runs_of_dataset['run'].nunique()} runs, {runs_of_dataset['n_images'].iloc[0]} images"
            left.set(xlabel="explanation size, mean over images (cells)", title=f"{dataset} ({count})")
            right.set(xlabel="largest logit of an image,\nmedian over images", title="the bound is 0")
            right.set_xscale("symlog", linthresh=1)
            right.set_xlim(3 * runs_of_dataset["median_largest_logit"].min() - 1, 0.5)
        if not datasets:
            figure.suptitle("None of abandoned_modules.datasets is among the datasets that ran")
    return figure
