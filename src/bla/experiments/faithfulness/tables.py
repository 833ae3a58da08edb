"""Methods compared: Table 2, and every metric's mean, standard error, direction and tests.

    table = table_two(correlations, kinds, published, constant_maps="zero")
    summary(per_image)                    # a row a dataset, method and metric
    tests(per_image, ("random", "bla_t")) # each method against these, paired by image

Methods are compared on the same images: every test is paired by image.
"""

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bla.inference.paired import crossed_bootstrap, holm, standard_error, wilcoxon
from bla.metrics import BY_NAME, METRICS

Array = NDArray[np.float64]
Correlations = Mapping[str, Mapping[str, Array]]
"""By dataset and method: rank correlations with LIME `[R, M]` of R runs on M images, NaN for constant maps."""

PUBLISHED_TWO = {"cam": "CAM", "bla_t": "BLA-T"}
"""The methods of the paper's Table 2."""


def scored(values: Array, constant_maps: str) -> Array:
    """Correlations with constant maps as 0, or as they are, NaN, where these are left out."""
    return np.nan_to_num(values) if constant_maps == "zero" else values


def table_two(
    correlations: Correlations, kinds: Mapping[str, str], published: pd.DataFrame, constant_maps: str
) -> pd.DataFrame:
    """Table 2: mean rank correlation with LIME, a row a dataset and method.

    Means are over images of the mean over runs. `standard_error` is over images, `standard_error_runs` over runs;
    `constant` is the share of maps that order nothing; `paper` the published value where there is one. The method `lime` is
    LIME with other random patterns: the ceiling.
    """
    paper = published[published["where"] == "Table 2"].set_index(["dataset", "method"])["value"]
    rows = []
    for dataset, methods in correlations.items():
        for method, found in methods.items():
            values = scored(found, constant_maps)
            images = _means(values, axis=0)
            runs = _means(values, axis=1)
            row: dict[str, object] = {"dataset": dataset, "method": method}
            row |= {"n_images": len(images), "n_runs": len(runs)}
            row |= {"mean": images.mean(), "standard_error": float(standard_error(images))}
            row |= {"standard_error_runs": float(standard_error(runs)) if len(runs) > 1 else np.nan}
            row["constant"] = float(np.isnan(found).mean())
            row["paper"] = paper.get((kinds[dataset], PUBLISHED_TWO.get(method, "")), np.nan)
            rows.append(row)
    return pd.DataFrame(rows)


def _means(values: Array, axis: int) -> Array:
    """Means over one axis of what is not NaN; what has nothing left is left out."""
    kept = ~np.all(np.isnan(values), axis=axis)
    return np.asarray(np.nanmean(values[:, kept] if axis == 0 else values[kept], axis=axis))


def table_two_tests(correlations: Correlations, constant_maps: str, resamples: int, seed: int) -> pd.DataFrame:
    """Every method of Table 2 against CAM: Wilcoxon over images, intervals over runs and images, Holm within a dataset."""
    rows = []
    for dataset, methods in correlations.items():
        values = {name: scored(found, constant_maps) for name, found in methods.items()}
        others = [name for name in values if name != "cam"]
        differences = np.stack([values[name] - values["cam"] for name in others])
        lower, upper = _intervals(differences, resamples, seed)
        for place, name in enumerate(others):
            x = _means(values[name] - values["cam"], axis=0)
            test = wilcoxon(x, np.zeros_like(x))
            row: dict[str, object] = {
                "dataset": dataset,
                "method": name,
                "against": "cam",
                "test": "Wilcoxon signed-rank over images, two-sided",
            }
            row |= {"n_images": len(x), "nonzero_pairs": test.nonzero_pairs, "mean_difference": x.mean()}
            row |= {"runs_images_low": lower[place], "runs_images_high": upper[place]}
            rows.append(row | {"rank_biserial": test.effect_size, "p": test.p})
    table = pd.DataFrame(rows)
    table["p_holm"] = table.groupby("dataset")["p"].transform(lambda p: holm(p.to_numpy()))
    return table


def _intervals(differences: Array, resamples: int, seed: int) -> tuple[Array, Array]:
    """Crossed bootstrap intervals over runs and images; NaN where maps were left out."""
    low, high = np.full(len(differences), np.nan), np.full(len(differences), np.nan)
    whole = np.array([np.isfinite(values).all() for values in differences])
    if whole.any():
        found = np.array(crossed_bootstrap(differences[whole], resamples, seed))
        low[whole], high[whole] = found[:, 0], found[:, 1]
    return low, high


def table_two_layout(table: pd.DataFrame, titles: Mapping[str, str]) -> pd.DataFrame:
    """Table 2 as texts: a row a dataset, the paper's values under it where it has them; a column a method."""
    methods = list(dict.fromkeys(table["method"]))
    rows = []
    for dataset, group in table.groupby("dataset", sort=False):
        cells = group.set_index("method")
        ours = {
            titles.get(m, m): f"{cells['mean'][m]:.2f} ± {cells['standard_error'][m]:.2f}"
            for m in methods
            if m in cells.index
        }
        rows.append({"Rank correlation with LIME": f"{dataset} (n = {group['n_images'].max()})"} | ours)
        if group["paper"].notna().any():
            paper = {
                titles.get(m, m): f"{cells['paper'][m]:.2f}"
                for m in methods
                if m in cells.index and cells["paper"][m] == cells["paper"][m]
            }
            rows.append({"Rank correlation with LIME": f"{dataset}, paper"} | paper)
    return pd.DataFrame(rows).fillna("–")


def summary(per_image: pd.DataFrame) -> pd.DataFrame:
    """Mean, standard error over images, n and the better direction: a row a dataset, method and metric, in their order."""
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
    """Each method's place by its mean among all of a dataset and metric, 1 for the best; equal means share a place."""
    signed = table["mean"].where(table["better"] == "lower", -table["mean"])
    return signed.groupby([table["dataset"], table["metric"]]).rank(method="min").astype("Int64")


def tests(per_image: pd.DataFrame, against: Iterable[str]) -> pd.DataFrame:
    """Every method against each of some others, metric by metric: Wilcoxon signed-rank over the images that both have.

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
                difference = np.round(pairs[:, 0] - pairs[:, 1], 9)  # what is equal but for rounding is tied
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
