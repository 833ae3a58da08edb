"""Table 2: rank correlations of the maps of all runs with LIME's, image by image; means, and tests against CAM.

correlations = {"cub20": correlations_with_lime(lime, {"cam": maps, ...})}
table = table_two(correlations, kinds, published, "zero", dataset_departures, variant_departures)
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bla.experiments.runs import corrected
from bla.inference.paired import crossed, smallest_p, standard_error, wilcoxon
from bla.metrics.rank_correlation import scored, spearman

Array = NDArray[np.float64]

Correlations = Mapping[str, Mapping[str, Array]]
"""By dataset and method: rank correlations with LIME `[R, M]` of R runs on M images, NaN for constant maps."""


PUBLISHED_TWO = {"cam": "CAM", "bla_t": "BLA-T"}
"""The methods of the paper's Table 2."""


def correlations_with_lime(lime: Array, maps: Mapping[str, Array]) -> dict[str, Array]:
    """Spearman's correlation `[R, M]` of each method's maps with LIME's, both `[R, M, n]`; NaN for constant maps.

    A classifier that is the same in all runs has maps `[1, M, n]`, which are compared with the maps of every run. Images
    that a method did not explain (NaN) are left out.
    """
    runs = max(len(values) for values in (lime, *maps.values()))
    correlations = {}
    for name, values in maps.items():
        explained = np.isfinite(values).all(axis=(0, 2))
        both = (np.broadcast_to(m[:, explained], (runs, explained.sum(), m.shape[2])) for m in (values, lime))
        correlations[name] = spearman(*both)
    return correlations


def table_two(
    correlations: Correlations,
    kinds: Mapping[str, str],
    published: pd.DataFrame,
    constant_maps: str,
    dataset_departures: Mapping[str, Sequence[str]],
    variant_departures: Mapping[str, Sequence[str]],
) -> pd.DataFrame:
    """Table 2: mean rank correlation with LIME, a row per dataset and method.

    `mean` averages over runs, then over images. `standard_error` is over images, `standard_error_runs` over runs;
    `constant` is the share of constant maps. `paper` is the published value, if any; then `departures` says how the
    settings differ from the paper's, those of the dataset and LIME (`dataset_departures`), and those of a variant
    (`variant_departures`). The method `lime` is LIME with other random patterns: the ceiling.
    """
    paper = published[published["where"] == "Table 2"].set_index(["dataset", "method"])["value"]
    rows = []
    for dataset, methods in correlations.items():
        for method, rho in methods.items():
            values = scored(rho, constant_maps)
            images = _means(values, axis=0)
            runs = _means(values, axis=1)
            row: dict[str, object] = {"dataset": dataset, "method": method}
            row |= {"n_images": len(images), "n_runs": len(runs)}
            row |= {"mean": images.mean(), "standard_error": float(standard_error(images))}
            row |= {"standard_error_runs": float(standard_error(runs)) if len(runs) > 1 else np.nan}
            row["constant"] = float(np.isnan(rho).mean())
            key = kinds[dataset], PUBLISHED_TWO.get(method, "")
            departures = [*dataset_departures.get(dataset, ()), *variant_departures.get(method, ())]
            row |= {"paper": paper.get(key, np.nan), "departures": ", ".join(departures) if key in paper.index else ""}
            rows.append(row)
    return pd.DataFrame(rows)


def _means(values: Array, axis: int) -> Array:
    """Means over one axis, ignoring NaN; rows (or columns) that are all NaN are dropped."""
    defined = ~np.all(np.isnan(values), axis=axis)
    return np.asarray(np.nanmean(values[:, defined] if axis == 0 else values[defined], axis=axis))


TESTS = ["dataset", "method", "against", "test", "n_images", "nonzero_pairs", "mean_difference"]
TESTS += ["runs_images_low", "runs_images_high", "rank_biserial", "p", "p_smallest"]


def table_two_tests(correlations: Correlations, constant_maps: str) -> pd.DataFrame:
    """Every method of Table 2 against CAM: Wilcoxon over images, intervals over runs and images, Holm within a dataset.

    A method on fewer images than CAM has no test.
    """
    rows = []
    for dataset, methods in correlations.items():
        values = {name: scored(rho, constant_maps) for name, rho in methods.items()}
        if "cam" not in values:  # the classifier has no linear head
            continue
        others = [name for name in values if name != "cam" and values[name].shape == values["cam"].shape]
        differences = np.stack([values[name] - values["cam"] for name in others])
        lower, upper = _intervals(differences)
        for place, name in enumerate(others):
            x = _means(values[name] - values["cam"], axis=0).round(9)  # so that equal means are no difference
            test = wilcoxon(x, np.zeros_like(x))
            row: dict[str, object] = {
                "dataset": dataset,
                "method": name,
                "against": "cam",
                "test": "Wilcoxon signed-rank over images, two-sided",
            }
            row |= {"n_images": len(x), "nonzero_pairs": test.nonzero_pairs, "mean_difference": x.mean()}
            row |= {"runs_images_low": lower[place], "runs_images_high": upper[place]}
            rows.append(row | {"rank_biserial": test.effect_size, "p": test.p, "p_smallest": smallest_p(len(x))})
    return corrected(pd.DataFrame(rows, columns=TESTS), ["dataset"])


def _intervals(differences: Array) -> tuple[Array, Array]:
    """Intervals over runs and images; NaN for methods that lack a value."""
    low, high = np.full(len(differences), np.nan), np.full(len(differences), np.nan)
    whole = np.array([np.isfinite(values).all() for values in differences])
    if whole.any():
        intervals = np.array(crossed(differences[whole]))
        low[whole], high[whole] = intervals[:, 0], intervals[:, 1]
    return low, high


def table_two_layout(table: pd.DataFrame, titles: Mapping[str, str]) -> pd.DataFrame:
    """Table 2 as texts: a row per dataset, and below it the paper's values, if any; a column per method."""
    methods = list(dict.fromkeys(table["method"]))
    rows = []
    for dataset, group in table.groupby("dataset", sort=False):
        cells = group.set_index("method")
        ours = {
            titles.get(m, m): f"{cells['mean'][m]:.2f} ± {cells['standard_error'][m]:.2f}"
            for m in methods
            if m in cells.index
        }
        fewer = cells["n_images"] < group["n_images"].max()
        ours = {title: text + (f" (n = {n})" if few else "") for (title, text), n, few in zip(ours.items(), cells["n_images"], fewer, strict=True)}  # fmt: skip
        rows.append({"Rank correlation with LIME": f"{dataset} (n = {group['n_images'].max()})"} | ours)
        if group["paper"].notna().any():
            paper = {
                titles.get(m, m): f"{cells['paper'][m]:.2f}"
                for m in methods
                if m in cells.index and cells["paper"][m] == cells["paper"][m]
            }
            rows.append({"Rank correlation with LIME": f"{dataset}, paper"} | paper)
    return pd.DataFrame(rows).fillna("–")


def titles(methods: Mapping[str, str], variants: Sequence[str]) -> dict[str, str]:
    """The titles of Table 2's methods by name; `methods` has the titles of all methods."""
    after = {f"{key}_after_threshold": f"{methods[key]} (after threshold)" for key in variants}
    return {**methods, **after, "lime": "LIME again"}


def markdown(table: pd.DataFrame, shown: Mapping[str, str], constant_maps: str) -> str:
    """The layout of Table 2 as Markdown, with the note that explains it."""
    layout = table_two_layout(table, shown).to_markdown(index=False, disable_numparse=True)
    rule = "ρ = 0." if constant_maps == "zero" else "left out."
    return (
        f"{layout}\n\nSpearman's ρ with LIME's map of the baseline, mean ± standard error over images of the mean over runs. "
        f"LIME again: LIME with other random patterns, the ceiling. Constant maps: {rule} Maps are q before the threshold "
        f"unless it says after. table2_tests.csv has every method against CAM.{departures_note(table, shown)}\n"
    )


def departures_note(table: pd.DataFrame, titles: Mapping[str, str]) -> str:
    """Sentences that say how settings differ from those of the paper's values in the table; empty if they agree."""
    departing = table[table["departures"] != ""].groupby(["dataset", "departures"], sort=False)["method"]
    return "".join(
        f" Not the paper's settings: {dataset}, {', '.join(titles.get(m, m) for m in methods)}: {departures}."
        for (dataset, departures), methods in departing
    )
