"""Similarity of maps: to LIME's, to those of noisy images, and to those of randomised classifiers."""

from collections.abc import Mapping, Sequence

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
    arrays: Mapping[str, Array], maps: Mapping[str, Array], levels: Sequence[str], constant_maps: str
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rank correlations of maps `[M, n]` with LIME's, with those of noisy images and of random classifiers, image by image.

    `arrays` is the output of the stage `maps`. Returns two tables: the metrics, a row per method, metric and image; and
    the correlations at every level of the cascade, a row per method, image and level (its number and layer).
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
        rows.append(table(name, spearman(original, arrays[f"noise/{name}"]), metric="stability"))
        random = [np.abs(spearman(original, of_level)) for of_level in arrays[f"random/{name}"]]
        rows.append(table(name, random[0], metric="randomised_head"))
        rows.append(table(name, random[-1], metric="randomised_network"))
        cascade += [table(name, values, level=n, layer=levels[n]) for n, values in enumerate(random)]
        if f"retrained/{name}" in arrays:
            head, network = (np.abs(spearman(original, refitted)) for refitted in arrays[f"retrained/{name}"])
            rows += [table(name, head, metric="retrained_head"), table(name, network, metric="retrained_network")]
    return pd.concat(rows), pd.concat(cascade)


def means_over_images(points: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Mean, standard error and number of the values that are not NaN, for each combination of the columns `by`."""
    groups = points.dropna(subset="value").groupby(list(by), sort=False)["value"]
    return groups.agg(mean="mean", standard_error="sem", n="count").reset_index()
