"""Similarity of maps: to LIME's, to a second map of the method, to maps of noisy images and of random classifiers."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor

from bla.base.specs import Explaining
from bla.method.equations import hard_explanation, logits_of
from bla.method.modules import Module
from bla.metrics.rank_correlation import scored, spearman

Array = NDArray[np.float64]


def hard_explanations(
    features: Tensor, modules: Mapping[str, tuple[Explaining, Module]]
) -> dict[str, NDArray[np.bool_]]:
    """The variants' hard explanations `[M, n]` of features `[M, n, C]`, from the modules of one run."""
    return {
        key: hard_explanation(variant, logits_of(variant, module(features)))[0].cpu().numpy()
        for key, (variant, module) in modules.items()
    }


def best_sets(sets: Mapping[str, Sequence[Sequence[Sequence[int]]]], cells: int) -> dict[str, NDArray[np.bool_]]:
    """The best set of each image as bool `[M, n]`, for methods that return sets; all false for an image without sets."""
    result = {}
    for name, of_images in sets.items():
        result[name] = np.zeros((len(of_images), cells), np.bool_)
        for row, of_image in zip(result[name], of_images, strict=True):
            row[of_image[0] if of_image else []] = True
    return result


def similarities(
    arrays: Mapping[str, Array],
    maps: Mapping[str, Array],
    levels: Sequence[str],
    constant_maps: str,
    ignore_image: Collection[str],
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rank correlations of maps `[M, n]` with LIME's, and with further maps of the same method, image by image.

    `arrays` is the output of the stage `maps`. The further maps are those with other random numbers, of noisy images
    and of random classifiers. Methods that `ignore_image` have no similarity to maps of noisy images and of random classifiers,
    which change nothing for them. Returns two tables: the metrics, a row per method, metric and
    image; and the correlations at every level of the cascade, a row per method, image, level (its number and layer) and
    draw. A random classifier that makes an image's map constant is left out of the image's mean over draws.
    """
    rows, cascade = [], []

    def table(name: str, values: Array, **more: str | int) -> pd.DataFrame:
        return pd.DataFrame({"method": name, "image": range(len(values)), "value": values}).assign(**more)

    for name, original in maps.items():
        if name != "lime":
            values = spearman(original, maps["lime"])
            explained = np.isfinite(original).all(axis=1)
            rows.append(table(name, np.where(explained, scored(values, constant_maps), np.nan), metric="lime"))
        if name == "mask":
            continue
        rows.append(table(name, spearman(original, arrays[f"again/{name}"]), metric="self_agreement"))
        if name in ignore_image:
            continue
        rows.append(table(name, spearman(original, arrays[f"noise/{name}"]), metric="stability"))
        random = [np.abs(spearman(original, of_level)) for of_level in arrays[f"random/{name}"]]
        cascade += [table(name, values, level=n, layer=levels[n], draw=0) for n, values in enumerate(random)]
        ends = [random[0]], [random[-1]]
        for draw, pair in enumerate(arrays[f"draws/{name}"], start=1):
            for end, level, values in zip(ends, (0, len(levels) - 1), pair, strict=True):
                end.append(np.abs(spearman(original, values)))
                cascade.append(table(name, end[-1], level=level, layer=levels[level], draw=draw))
        for metric, end in zip(("randomised_head", "randomised_network"), ends, strict=True):
            rows.append(table(name, pd.DataFrame(end).mean().to_numpy(), metric=metric))
        if f"retrained/{name}" in arrays:
            head, network = (np.abs(spearman(original, refitted)) for refitted in arrays[f"retrained/{name}"])
            rows += [table(name, head, metric="retrained_head"), table(name, network, metric="retrained_network")]
    return pd.concat(rows), pd.concat(cascade)


def mean_cascade(cascade: pd.DataFrame) -> pd.DataFrame:
    """The table `cascade` of `similarities` as means over images of the mean over draws, by method and level.

    `draws` is the number of random classifiers of a level; `deviation_draws` the standard deviation over them of the
    mean over images, NaN for one.
    """
    by = ["method", "level", "layer"]
    cascade = cascade.dropna(subset="value")
    of_draws = cascade.groupby([*by, "draw"], sort=False)["value"].mean()
    spread = of_draws.groupby(by, sort=False).agg(draws="count", deviation_draws="std").reset_index()
    of_images = cascade.groupby([*by, "image"], sort=False)["value"].mean().reset_index()
    return means_over_images(of_images, by).merge(spread, on=by).sort_values(by[:2], kind="stable", ignore_index=True)


def means_over_images(points: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Mean, standard error and number of the values that are not NaN, for each combination of the columns `by`."""
    groups = points.dropna(subset="value").groupby(list(by), sort=False)["value"]
    return groups.agg(mean="mean", standard_error="sem", n="count").reset_index()
