"""Comparison of methods: mean, standard error, direction, ranks and tests of every metric.

    summary(per_image)                    # a row per dataset, method and metric
    tests(per_image, ("random", "bla_t")) # each method against these, paired by image
    differences(per_image, tests)         # do the methods differ at all?

Ranks and tests use the same images for all methods: all that are explained, of deletion and insertion the `slow_images`,
without those for which no method has a value. A method without a value for one of them has no rank and no test.
"""

from collections.abc import Collection, Iterable, Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from bla.base.rounding import joined
from bla.experiments.runs import corrected, did_not_train
from bla.inference.paired import smallest_p, wilcoxon
from bla.metrics import BY_NAME, METRICS

Array = NDArray[np.float64]

CONTROLS = ("random", "constant", "centre", "edges")
"""Methods that do not look at the classifier."""
AGAINST = (*CONTROLS, "bla_t")
"""The controls that every method must beat, and the paper's method."""
COSTS = ("forwards", "backwards", "seconds")
"""Metrics that say what a map costs, measured for all images of a method together, so that they have no standard error."""
UNRANKED = ("road_morf", "road_lerf", "self_agreement")
"""Metrics that are neither ranked nor tested: the ranked metric `road` is the difference of the first two, and the last says
how far chance decides a map."""


def objectives(methods: pd.DataFrame) -> pd.DataFrame:
    """The learned methods that have an objective: its values on held-out images, and whether they trained."""
    table = methods.assign(trained=~did_not_train(methods).to_numpy())
    table = table[table["objective_of_constant"].notna()]
    return table[["dataset", "method", "title", "objective", "objective_of_constant", "trained"]]


def summary(per_image: pd.DataFrame, untrained: Collection[tuple[str, str]] = ()) -> pd.DataFrame:
    """A row per dataset, method and metric, sorted by dataset and metric.

    `mean`, `standard_error` (none of `COSTS`) and `n` are over all images of the method. `ranked_mean`, `ranked_n` and `rank` are over
    the images that all methods share; a method without a value for one of these has neither `ranked_mean` nor `rank`,
    and neither have the `untrained` pairs of dataset and method, nor the metrics `UNRANKED`. `better` is the metric's
    direction.
    """
    groups = per_image.groupby(["dataset", "method", "metric"], sort=False)["value"]
    table = groups.agg(mean="mean", standard_error="sem", n="count").reset_index()
    table["standard_error"] = table["standard_error"].mask(table["metric"].isin(COSTS))
    order = {metric.name: place for place, metric in enumerate(METRICS)}
    table = table.sort_values("metric", key=lambda names: names.map(order), kind="stable")
    places = {name: place for place, name in enumerate(dict.fromkeys(per_image["dataset"]))}
    table = table.sort_values("dataset", key=lambda names: names.map(places), kind="stable", ignore_index=True)
    table["better"] = [BY_NAME[name].better for name in table["metric"]]
    pairs = zip(per_image["dataset"], per_image["method"], strict=True)
    kept = np.array([pair not in untrained for pair in pairs], bool)  # of no rows, a list would select columns
    trained = per_image[kept]
    shared = {key: shared_values(group) for key, group in trained.groupby(["dataset", "metric"], sort=False)}
    of_rows = [shared.get((row.dataset, row.metric), pd.DataFrame()) for row in table.itertuples()]
    ranked = [values.get(method) for values, method in zip(of_rows, table["method"], strict=True)]
    ranked = [None if metric in UNRANKED else values for values, metric in zip(ranked, table["metric"], strict=True)]
    table["ranked_mean"] = [np.nan if values is None else values.mean() for values in ranked]
    table["ranked_n"] = [len(values) for values in of_rows]
    table["rank"] = _ranks(table)
    return table


def with_seconds(per_image: pd.DataFrame, seconds: pd.DataFrame) -> pd.DataFrame:
    """`per_image` with the metric `seconds` of each dataset and method, for the images of its metric `forwards`."""
    images = per_image[per_image["metric"] == "forwards"].drop(columns=["value", "metric"])
    rows = images.merge(seconds.rename(columns={"seconds": "value"}), on=["dataset", "method"])
    return pd.concat([per_image, rows.assign(metric="seconds")], ignore_index=True)


def shared_values(per_image: pd.DataFrame) -> pd.DataFrame:
    """The values of a dataset and metric on the images that all methods share: a row per image, a column per method.

    These are the images for which any method has a value. Methods without a value for one of them are dropped.
    """
    wide = per_image.pivot(index="image", columns="method", values="value")
    return wide.dropna(how="all").dropna(axis="columns")


def _ranks(table: pd.DataFrame) -> pd.Series:
    """Each method's rank by its mean within a dataset and metric, 1 is best; means equal up to rounding are ties."""
    signed = table["ranked_mean"].where(table["better"] == "lower", -table["ranked_mean"]).round(12)
    groups = signed.groupby([table["dataset"], table["metric"]])
    equal = groups.transform(lambda means: joined(means.to_numpy(float)))
    return equal.groupby([table["dataset"], table["metric"]]).rank(method="min").astype("Int64")


def tests(per_image: pd.DataFrame, against: Iterable[str]) -> pd.DataFrame:
    """Every method against each reference, metric by metric: Wilcoxon signed-rank test over the shared images.

    `mean_difference` is method - reference. A family is the methods of one dataset, reference and metric, since a
    metric is a question of its own: more tests in a family would need more images to answer any of them. Over several
    metrics the error rate is not controlled. `p_holm_smallest` is the smallest corrected p that is possible with this
    number of images: if it is not below alpha, no test of the family can be significant.
    """
    rows = []
    for (dataset, metric), group in per_image.groupby(["dataset", "metric"], sort=False):
        if metric in (*COSTS, *UNRANKED):
            continue
        wide = shared_values(group)
        for reference in against:
            if reference not in wide:
                continue
            for method in [name for name in dict.fromkeys(group["method"]) if name in wide and name != reference]:
                if len(wide) < 2:
                    continue
                difference = np.round((wide[method] - wide[reference]).to_numpy(), 9)  # equal up to rounding: ties
                test = wilcoxon(difference, np.zeros_like(difference))
                row = {"dataset": dataset, "metric": metric, "method": method, "against": reference}
                row |= {"test": "Wilcoxon signed-rank over images, two-sided", "n": len(wide)}
                row |= {"nonzero_pairs": test.nonzero_pairs, "mean_difference": float(difference.mean())}
                row |= {"rank_biserial": test.effect_size, "p": test.p, "p_smallest": smallest_p(len(wide))}
                rows.append(row)
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
        "p_smallest",
    ]
    return corrected(pd.DataFrame(rows, columns=columns), ["dataset", "against", "metric"])


def answerable(tests: pd.DataFrame, alpha: float) -> pd.DataFrame:
    """Those of `tests` whose family has enough images: with too few, even a method that wins on all has a p of alpha or more."""
    return tests[tests["p_holm_smallest"] < alpha]


def differences(
    per_image: pd.DataFrame, tests: pd.DataFrame, untrained: Collection[tuple[str, str]] = ()
) -> pd.DataFrame:
    """Do the methods differ at all? Friedman's test over the shared images, a row per dataset and metric.

    One test instead of one per method, so that few images can answer. Controls and the object mask take no part, since
    they differ from methods anyway (decided after a first version with them had been seen), nor do the `untrained`
    pairs of dataset and method. `kendalls_w` is the effect size: 0 if images order the methods at random, 1 if all order
    them alike. The metrics of a dataset are a family; p comes from the chi-squared distribution, which is conservative
    for few images. `smallest_of_single` is the smallest `p_holm` that single methods can have in `tests`.
    """
    single = tests.groupby(["dataset", "metric"])["p_holm_smallest"].min()
    names = zip(per_image["dataset"], per_image["method"], strict=True)
    takes_part = [pair[1] not in (*CONTROLS, "mask") and pair not in untrained for pair in names]
    rows = []
    for (dataset, metric), group in per_image[np.array(takes_part, bool)].groupby(["dataset", "metric"], sort=False):
        values = shared_values(group).to_numpy().round(9)  # equal up to rounding: ties
        images, methods = values.shape
        if metric in (*COSTS, *UNRANKED) or images < 2 or methods < 3:
            continue
        largest = images * (methods - 1)
        equal = bool((values == values[:, :1]).all())  # scipy divides by 0
        statistic = 0.0 if equal else float(stats.friedmanchisquare(*values.T).statistic)
        p, smallest = (float(stats.chi2.sf(value, methods - 1)) for value in (statistic, largest))
        smallest_of_single = single.get((dataset, metric), np.nan)
        rows.append((dataset, metric, "Friedman over images", images, methods, smallest_of_single, statistic / largest, p, smallest))  # fmt: skip
    columns = ["dataset", "metric", "test", "n", "methods", "smallest_of_single", "kendalls_w", "p", "p_smallest"]
    return corrected(pd.DataFrame(rows, columns=columns), ["dataset"])


def beaten_by_controls(tests: pd.DataFrame, titles: Mapping[str, str], alpha: float) -> pd.DataFrame:
    """Which methods are worse than a control: a row per dataset, metric and control that any method is worse than.

    `tests` is the table of `tests`. `worse` lists the methods with a worse mean over the shared images, `significantly`
    those of them with a corrected p below alpha.
    """
    rows = []
    of_controls = tests[tests["against"].isin(CONTROLS) & ~tests["method"].isin([*CONTROLS, "mask"])]
    for (dataset, metric, control), group in of_controls.groupby(["dataset", "metric", "against"], sort=False):
        sign = 1 if BY_NAME[str(metric)].better == "higher" else -1
        worse = group[sign * group["mean_difference"] < 0]
        if len(worse):
            row = {"dataset": dataset, "metric": metric, "control": titles[str(control)], "n": worse["n"].iloc[0]}
            row |= {"methods": len(group), "worse": ", ".join(titles[name] for name in worse["method"])}
            clearly = worse.loc[worse["p_holm"] < alpha, "method"]
            rows.append(row | {"significantly": ", ".join(titles[name] for name in clearly)})
    columns = ["dataset", "metric", "control", "n", "methods", "worse", "significantly"]
    return pd.DataFrame(rows, columns=columns)
