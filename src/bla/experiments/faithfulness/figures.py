"""Pictures that compare explanation methods: maps side by side, against LIME, curves, ranks, and the random cascade.

Every method has the same colour and line in all pictures; controls are grey.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from textwrap import fill
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from numpy.typing import NDArray

from bla.experiments.faithfulness.tables import summary
from bla.experiments.runs import DID_NOT_TRAIN, did_not_train
from bla.metrics import BY_NAME
from bla.metrics.rank_correlation import spearman
from bla.plotting.maps import one_by_one, sentence, side_by_side
from bla.plotting.style import STYLE

Array = NDArray[np.float64]

PANELS = {
    "deletion_black": "deletion, black: lower is better",
    "insertion_black": "insertion, black: higher is better",
    "accuracy_image": "patches seen, others black: higher is better",
    "road_morf": "ROAD, most relevant removed first: lower is better",
    "deletion_blur": "deletion, blurred: lower is better",
    "insertion_blur": "insertion, blurred: higher is better",
    "accuracy_features": "cells pooled: higher is better",
    "road_lerf": "ROAD, least relevant removed first: higher is better",
}
"""The curves of `bla.metrics.measure` that are drawn, and their titles."""


PICTURED = 5
"""Number of test images in the picture of all methods' maps."""
SCATTERED = 3
"""Number of these images in the picture that plots maps against LIME's, cell by cell."""


def pictures(
    title: str,
    maps_by_method: Mapping[str, Array],
    cells_by_method: Mapping[str, Array],
    sets: Mapping[str, Sequence[Sequence[int]]],
    grid: tuple[int, int],
    methods: pd.DataFrame,
    per_image: pd.DataFrame,
    points: pd.DataFrame,
    random: pd.DataFrame,
    parts: pd.DataFrame,
    images: NDArray[np.uint8],
    targets: NDArray[np.int64],
    classes: Sequence[str],
) -> dict[str, Callable[[], Figure]]:
    """All pictures of a dataset by name, each as a function that draws it and can be sent to another process.

    Methods that explain few images do not decide which images are shown, and have no curve and no plot against LIME.

    `maps_by_method` `[M, h', w']` have the method's own resolution, `cells_by_method` `[M, n]` are their means over the
    cells of the `grid`; `sets` are the cells of each method's best set, if it has sets. `methods` is the table of the
    stage `maps`; `per_image`, `points`, `random` and `parts` are the tables of the stage `faithfulness`. `images` uint8
    `[M, H, W, 3]`; `targets` `[M]` are the explained classes, `classes` captions by label.
    """
    failed = did_not_train(methods)
    untrained = [(name, method) for name in per_image["dataset"].unique() for method in methods.loc[failed, "method"]]
    methods = methods.assign(title=methods["title"].astype(str) + failed.map({True: DID_NOT_TRAIN, False: ""}))
    ranks = summary(per_image, untrained)
    mask = pd.DataFrame([{"method": "mask", "title": "object mask", "learned": False, "control": True, "few": False}])
    with_mask = pd.concat([methods, mask]) if (per_image["method"] == "mask").any() else methods
    titles = dict(zip(methods["method"], methods["title"].astype(str), strict=True))
    maps = {title: cells_by_method[method] for method, title in titles.items()}
    few = set(methods.loc[methods["few"].astype(bool), "method"])
    whole = explained_by_all(cells_by_method, methods)
    shown = whole[spread(len(whole), PICTURED)]
    captions = [f"“{classes[int(target)]}”" for target in targets[shown]]
    drawn = {title: maps_by_method[method][shown] for method, title in titles.items()}
    outlined = {titles[method]: [of_images[number] for number in shown] for method, of_images in sets.items()}
    heading = f"{title}: how much each method says that places matter for the class at the left, blue little, red much"

    drawings: dict[str, Callable[[], Figure]] = {
        name: partial(sentence, f"{title}: not drawn, because the dataset is in faithfulness.left_out")
        for name in ("lime", "curves", "cascade")
    }
    drawings |= {
        "maps": partial(side_by_side, images[shown], drawn, captions, heading, grid, outlined),
        "ranks": partial(rank_map, ranks, with_mask, title),
        "parts": partial(sentence, f"{title}: not drawn, because only painted birds can lack a part"),
    }
    if len(parts):
        drawings["parts"] = partial(effects_of_parts, parts, ranks, with_mask, title)
    if not len(points):
        return drawings
    first = shown[:SCATTERED]
    lime = maps["LIME"][first]
    others = {title: maps[title][first] for name, title in titles.items() if name not in ("lime", *few)}
    agreement = {name: spearman(values, lime) for name, values in others.items()}
    return drawings | {
        "lime": partial(against_lime, lime, others, agreement, captions[:SCATTERED]),
        "curves": partial(curves, points[~points["method"].isin(few)], with_mask),
        "cascade": partial(cascade, random, methods, math.prod(grid)),
    }


def pictures_of_photos(
    maps_by_method: Mapping[str, Array],
    sets: Mapping[str, Sequence[Sequence[int]]],
    grid: tuple[int, int],
    methods: pd.DataFrame,
    images: NDArray[np.uint8],
    headings: Sequence[str],
    count: int | None,
) -> dict[int, Callable[[], Figure]]:
    """By row of the maps, a picture of one image with all methods' overlays, for `count` images (None: all).

    Images that all methods explain come first. Arguments are as in `pictures`; `headings` has one for each image.
    """
    suffixes = did_not_train(methods).map({True: DID_NOT_TRAIN, False: ""})
    titles = dict(zip(methods["method"].astype(str), methods["title"].astype(str) + suffixes, strict=True))
    whole = explained_by_all({name: maps.reshape(len(maps), -1) for name, maps in maps_by_method.items()}, methods)
    others = np.setdiff1d(np.arange(len(images)), whole)
    wanted = len(images) if count is None else count
    shown = [*whole[spread(len(whole), wanted)], *others[spread(len(others), wanted - len(whole))]]
    return {
        int(row): partial(
            one_by_one,
            images[row],
            {title: maps_by_method[name][row] for name, title in titles.items()},
            headings[row],
            grid,
            {titles[name]: of_images[row] for name, of_images in sets.items()},
        )
        for row in shown
    }


def explained_by_all(maps: Mapping[str, Array], methods: pd.DataFrame) -> NDArray[np.int64]:
    """The rows of `maps` `[M, n]` that every method explains, apart from methods that explain few images."""
    most = methods.loc[~methods["few"].astype(bool), "method"]
    return np.nonzero(np.all([np.isfinite(maps[name]).all(axis=1) for name in most], axis=0))[0]


def spread(among: int, count: int) -> NDArray[np.int64]:
    """`count` of the numbers below `among`, evenly spread: images are ordered by class, so they are of several classes."""
    count = max(0, min(count, among))
    return (2 * np.arange(count) + 1) * among // max(1, 2 * count)


def effects_of_parts(parts: pd.DataFrame, table: pd.DataFrame, methods: pd.DataFrame, heading: str) -> Figure:
    """Left: the mean effect of each painted part on each classifier's logit. Right: how well maps agree with the effects.

    `parts` is the table of effects; `table` the `summary` of `bla.experiments.faithfulness.tables`. Bars are standard
    errors over images; controls are grey.
    """
    titles = dict(zip(methods["method"], methods["title"], strict=True))
    scores = [name for name in ("part_effects", "part_effects_mean", "own_part_effects", "decisive_part") if name in set(table["metric"])]  # fmt: skip
    look, height = looks(methods), 0.24 * len(methods) + 1.3
    with plt.rc_context(STYLE), sns.axes_style("whitegrid"):
        figure, grid = plt.subplots(
            1, 1 + len(scores), figsize=(3.4 + 2.6 * len(scores), height), layout="constrained", squeeze=False
        )
        axes = grid[0]
        order = list(dict.fromkeys(parts["part"]))
        for classifier, rows in parts.groupby("classifier", sort=False):
            of_part = rows.set_index("part").loc[order]
            own = {**look.get(str(classifier), {"color": "0.1"}), "linestyle": "", "label": titles.get(classifier, "BL (explained)")}  # fmt: skip
            axes[0].errorbar(of_part["effect_logit"], range(len(order)), xerr=of_part["standard_error_logit"], marker="o", markersize=4, **own)  # fmt: skip
        axes[0].set_yticks(range(len(order)), order)
        axes[0].axvline(0, color="0.25", linewidth=1)
        axes[0].set(title=f"effect of parts (n = {_range(parts['n'])})", xlabel="logit with − without the part")
        axes[0].legend(fontsize=6, loc="best")
        for axis, name in zip(axes[1:], scores, strict=True):
            rows = table[table["metric"] == name].set_index("method").reindex(list(titles))
            for place, (method, row) in enumerate(rows.iterrows()):
                axis.errorbar(row["mean"], place, xerr=row["standard_error"], marker="o", markersize=4, color=look[str(method)]["color"])  # fmt: skip
            axis.axvline(0, color="0.25", linewidth=1)
            axis.set_yticks(range(len(titles)), list(titles.values()) if axis is axes[1] else [""] * len(titles))
            axis.set(ylim=(len(titles) - 0.5, -0.5), xlabel=BY_NAME[name].unit)
            axis.set_title(f"{fill(BY_NAME[name].title, 22)} (n = {_range(rows['n'].dropna().astype(int))})")
        figure.suptitle(f"{heading}: mean ± standard error over images")
    return figure


def looks(methods: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Colour, line and width of each method; `methods` has a row per method with `title`, `learned`, `control`."""
    colours = [
        colour for place, colour in enumerate(sns.color_palette("colorblind", 10)) if place != 7
    ]  # colour 7 is grey
    lines: list[Any] = ["-", "--", ":", "-.", (0, (1, 5))]
    result: dict[str, dict[str, Any]] = {}
    places = {True: 0, False: 0}
    for row in methods.itertuples():
        place, control = places[bool(row.control)], bool(row.control)
        look = {"color": "0.55", "linestyle": lines[place % 5], "linewidth": 1}
        if not control:
            look = {"color": colours[place % 9], "linestyle": lines[place // 9], "linewidth": 2 if row.learned else 1.3}
        places[control] += 1
        result[str(row.method)] = look | {"label": row.title}
    return result


def against_lime(
    lime: Array, maps: Mapping[str, Array], correlations: Mapping[str, Array], captions: list[str]
) -> Figure:
    """A row per image, a column per method: each cell's LIME coefficient and its weight in the map, with Spearman's ρ.

    `lime` `[m, n]`; `maps` by title `[m, n]`; `correlations` by title `[m]`.
    """
    with plt.rc_context(STYLE), sns.axes_style("ticks"):
        figure, axes = plt.subplots(len(lime), len(maps), figsize=(1.35 * len(maps), 1.4 * len(lime) + 0.8), squeeze=False, layout="constrained")  # fmt: skip
        for row in range(len(lime)):
            for column, (title, values) in enumerate(maps.items()):
                axis = axes[row, column]
                axis.scatter(
                    lime[row], values[row], s=7, color=sns.color_palette("colorblind")[0], alpha=0.7, linewidth=0
                )
                rho = correlations[title][row]
                axis.set_title((f"{title}\n" if row == 0 else "") + ("constant" if np.isnan(rho) else f"ρ = {rho:.2f}"))
                axis.locator_params(nbins=3)
                axis.tick_params(labelsize=5, length=2, pad=1)
                axis.margins(0.1)
            axes[row, 0].set_ylabel(f"{captions[row]}\nweight in the map")
        figure.supxlabel("LIME coefficient (change of the class's probability when the patch is shown)", fontsize=9)
    return figure


def curves(points: pd.DataFrame, methods: pd.DataFrame) -> Figure:
    """Deletion, insertion, accuracy and ROAD against the share of cells, mean over images; a panel per curve.

    `points` has method, curve, share, mean, standard_error and n. Learned methods have a band of ± one standard error.
    """
    look = looks(methods)
    with plt.rc_context(STYLE), sns.axes_style("whitegrid"):
        figure, axes = plt.subplots(2, 4, figsize=(16, 7), squeeze=False, layout="constrained")
        for axis, (curve, title) in zip(axes.flat, PANELS.items(), strict=True):
            points_of_curve = points[points["curve"] == curve]
            for method, line in points_of_curve.groupby("method", sort=False):
                axis.plot(line["share"], line["mean"], **look[str(method)])
                if look[str(method)]["linewidth"] == 2:
                    low, high = line["mean"] - line["standard_error"], line["mean"] + line["standard_error"]
                    axis.fill_between(
                        line["share"], low, high, color=look[str(method)]["color"], alpha=0.15, linewidth=0
                    )
            what = "accuracy" if curve.startswith("accuracy") else "probability of the class"
            done = "hidden" if curve.startswith("deletion") else "removed" if curve.startswith("road") else "shown"
            axis.set(
                title=f"{title} (n = {_range(points_of_curve['n'])} images)",
                xlabel=f"share of cells {done}",
                ylabel=what,
                xlim=(0, 1),
            )
        handles = {
            label: line for axis in axes.flat for line, label in zip(*axis.get_legend_handles_labels(), strict=True)
        }
        figure.legend(handles.values(), handles, loc="outside right center")
    return figure


def rank_map(table: pd.DataFrame, methods: pd.DataFrame, heading: str) -> Figure:
    """Methods by metrics of one dataset: means as text, ranks among methods as colour, bright for the best.

    Means and ranks are over the images that all methods share. A method without a value for one of these, and a metric
    without ranks, have the mean over all images in brackets, and no colour. `table` is the `summary` of
    `bla.experiments.faithfulness.tables`.
    """
    titles = dict(zip(methods["method"], methods["title"], strict=True))
    metrics = [name for name in BY_NAME if name in set(table["metric"])]
    means, unranked = (table.pivot(index="method", columns="metric", values=values).reindex(list(titles))[metrics] for values in ("ranked_mean", "mean"))  # fmt: skip
    ranks = table.pivot(index="method", columns="metric", values="rank").reindex(list(titles))[metrics].astype(float)
    relative = (ranks - 1) / (ranks.max() - 1).clip(lower=1)
    counts = table.groupby("metric")["ranked_n"].first()
    arrows = {"higher": "↑", "lower": "↓"}
    labels = []
    for name in metrics:
        labels.append(f"{BY_NAME[name].title} {arrows[BY_NAME[name].better]}  (n = {counts[name]})")
    texts, brackets = (values.map(lambda v: "" if np.isnan(v) else f"{v:.0f}" if abs(v) >= 10 else f"{v:.2f}") for values in (means, unranked))  # fmt: skip
    note = "mean over the n images that all share; colour: rank, brightest is best; (in brackets: unranked, of fewer images or a metric without ranks)"
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(0.62 * len(metrics) + 2.5, 0.36 * len(titles) + 3.6), layout="constrained")
        sns.heatmap(1 - relative, annot=texts.to_numpy(), fmt="", cmap="cividis", linewidths=0.5, cbar=False, ax=axis, annot_kws={"size": 7})  # fmt: skip
        for row, column in zip(*np.nonzero(means.isna() & unranked.notna()), strict=True):
            axis.text(column + 0.5, row + 0.5, f"({brackets.iloc[row, column]})", ha="center", va="center", fontsize=7)
        axis.set_xticks(np.arange(len(metrics)) + 0.5, labels, rotation=50, ha="right", rotation_mode="anchor")
        axis.set_yticks(np.arange(len(titles)) + 0.5, list(titles.values()), rotation=0)
        axis.set(
            xlabel="",
            ylabel="",
            title=f"{heading}\n{fill(note, 12 * len(metrics) + 20)}",
        )
    return figure


def cascade(points: pd.DataFrame, methods: pd.DataFrame, cells: int) -> Figure:
    """Similarity to the original map with more and more random layers; a high line means that they do not matter.

    `points` is the table of `mean_cascade`; `cells` is the number of cells of a map. Thick bars are the standard
    deviation over random classifiers, where there are several. Levels that were not measured, of slow methods or with
    only constant maps, interrupt a line. The legend says which methods have fewer images.
    """
    look = looks(methods)
    layers = points.drop_duplicates("level").sort_values("level")
    with plt.rc_context(STYLE), sns.axes_style("whitegrid"):
        figure, axis = plt.subplots(figsize=(9, 4.6), layout="constrained")
        for method, line in points.groupby("method", sort=False):
            line, of_method = line.set_index("level").reindex(layers["level"]), look[str(method)]
            if (images := line["n"].max()) < points["n"].max():
                of_method = of_method | {"label": f"{of_method['label']} ({images:.0f} images)"}
            axis.errorbar(line.index, line["mean"], yerr=line["standard_error"], marker="o", markersize=4, elinewidth=0.7, **of_method)  # fmt: skip
            axis.errorbar(line.index, line["mean"], yerr=line["deviation_draws"], fmt="none", elinewidth=4, alpha=0.35, ecolor=of_method["color"])  # fmt: skip
        axis.set_xticks(layers["level"], layers["layer"], rotation=30, ha="right")
        by_chance = (2 / np.pi / (cells - 1)) ** 0.5  # mean of |N(0, 1 / (n - 1))|
        axis.axhline(by_chance, color="0.25", linewidth=1, linestyle=(0, (1, 2)), label="unrelated maps, expected")
        axis.set(
            ylim=(0, None),
            xlabel="random from the head down to this layer",
            ylabel="Spearman's |ρ| with the original map",
            title=f"mean ± standard error over {points['n'].max()} images; thick: deviation over {points['draws'].max()} random classifiers; lower is better",
        )
        figure.legend(loc="outside right center")
    return figure


def _range(counts: pd.Series) -> str:
    low, high = counts.min(), counts.max()
    return str(low) if low == high else f"{low}–{high}"
