"""Means of BLA-T and L2X on each synthetic set, paired tests, and how often each feature is selected."""

import pandas as pd

from bla.experiments.runs import PAIRED, corrected, means, paired

METHODS = {"bla_t": "BLA-T", "l2x": "L2X"}
MEASURES = ["median_rank", "logit_median_rank", "exact", "precision", "recall", "explanation_size", "accuracy"]
RUN = ["data", "method", "k", "run", "seed", "n_train_samples", "n_samples", *MEASURES]


def summary(runs: pd.DataFrame) -> pd.DataFrame:
    """A row per set and method: means over runs with standard errors, and the smallest possible median rank."""
    table = means(runs.rename(columns={"n_samples": "n_images"}), ["data", "method", "k"], MEASURES)
    return table.rename(columns={"n_images": "n_samples"}).assign(ideal_median_rank=(table["k"] + 1) / 2)


def differences(runs: pd.DataFrame) -> pd.DataFrame:
    """BLA-T - L2X, paired by run, with Holm's p.

    A family is the sets of one measure, since each measure is a question of its own. Four sets need eight runs.
    """
    rows = []
    for data, group in runs.groupby("data", sort=False):
        bla_t, l2x = (group[group["method"] == name].sort_values("run") for name in METHODS)
        for name in MEASURES:
            row = {"data": data, "measure": name}
            rows.append(row | paired(bla_t[name].to_numpy(float), l2x[name].to_numpy(float)))
    return corrected(pd.DataFrame(rows, columns=["data", "measure", *PAIRED]), ["measure"])


def by_feature(features: pd.DataFrame) -> pd.DataFrame:
    """A row per set, method, case (samples with the same relevant features) and feature: share of samples that select it.

    Means and standard errors are over runs.
    """
    groups = features.groupby(["data", "method", "case", "feature", "relevant"], sort=False)["selected"]
    return groups.agg(selected="mean", selected_standard_error="sem", n_runs="size").reset_index()
