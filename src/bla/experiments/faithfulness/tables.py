"""Methods compared: every metric's mean, standard error, direction and tests.

    summary(per_image)                    # a row a dataset, method and metric
    tests(per_image, ("random", "bla_t")) # each method against these, paired by image

Methods are compared on the same images: every test is paired by image.
"""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bla.inference.paired import holm, wilcoxon
from bla.metrics import BY_NAME, METRICS

Array = NDArray[np.float64]

AGAINST = ("random", "bla_t")
"""The control that every method must beat, and the paper's method."""


def summary(per_image: pd.DataFrame) -> pd.DataFrame:
    """Mean, standard error over images, n and better direction: a row per dataset, method and metric, in their order."""
    groups = per_image.groupby(["dataset", "method", "metric"], sort=False)["value"]
    table = groups.agg(mean="mean", standard_error="sem", n="count").reset_index()
    order = {metric.name: place for place, metric in enumerate(METRICS)}
    table = table.sort_values("metric", key=lambda names: names.map(order), kind="stable")
    places = {name: place for place, name in enumerate(dict.fromkeys(per_image["dataset"]))}
    table = table.sort_values("dataset", key=lambda names: names.map(places), kind="stable", ignore_index=True)
    table["better"] = [BY_NAME[name].better for name in table["metric"]]
    table["rank"] = _ranks(table)
    return table


def _ranks(table: pd.DataFrame) -> pd.Series:
    """Each method's rank by its mean within a dataset and metric, 1 for the best; equal means share a rank."""
    signed = table["mean"].where(table["better"] == "lower", -table["mean"])
    return signed.groupby([table["dataset"], table["metric"]]).rank(method="min").astype("Int64")


def tests(per_image: pd.DataFrame, against: Iterable[str]) -> pd.DataFrame:
    """Every method against each reference, metric by metric: Wilcoxon signed-rank test over the images that both have.

    `mean_difference` is method - reference; Holm corrects over all metrics and methods of a dataset and reference.
    """
    rows = []
    for (dataset, metric), group in per_image.groupby(["dataset", "metric"], sort=False):
        if metric in ("forwards", "backwards"):
            continue
        wide = group.pivot(index="image", columns="method", values="value")
        for reference in against:
            if reference not in wide:
                continue
            for method in [name for name in dict.fromkeys(group["method"]) if name != reference]:
                pairs = wide[[method, reference]].dropna().to_numpy()
                if len(pairs) < 2:
                    continue
                difference = np.round(pairs[:, 0] - pairs[:, 1], 9)  # values equal up to rounding are ties
                test = wilcoxon(difference, np.zeros_like(difference))
                row = {"dataset": dataset, "metric": metric, "method": method, "against": reference}
                row |= {"test": "Wilcoxon signed-rank over images, two-sided", "n": len(pairs)}
                row |= {
                    "nonzero_pairs": test.nonzero_pairs,
                    "mean_difference": float(difference.mean()),
                }
                rows.append(row | {"rank_biserial": test.effect_size, "p": test.p})
    columns = [
        "dataset",
        "metric",
        "method",
        "against",
        "test",
        "n",
        "nonzero_pairs",
        "mean_difference",
        "rank_biserial",
        "p",
    ]
    table = pd.DataFrame(rows, columns=columns)
    table["p_holm"] = table.groupby(["dataset", "against"])["p"].transform(lambda p: holm(p.to_numpy()))
    return table
