"""Stage `faithfulness@DATASET`: every metric of every method's maps, image by image, in data/faithfulness/DATASET/."""

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from bla.base.specs import BoundedLogits
from bla.experiments.faithfulness.tables import scored
from bla.explainers.posthoc.cam import cam
from bla.method.equations import hard_explanation, logits_of, soft_weights, threshold
from bla.method.modules import Module
from bla.metrics.measure import Subject, measure
from bla.metrics.rank_correlation import spearman
from bla.runtime.seeds import derive_seed
from pipeline.artifacts.explained_images import load_arrays, load_explained, load_module
from pipeline.artifacts.files import load_array, replacing, save_table
from pipeline.artifacts.paths import FAITHFULNESS, HEADS, IMAGES, LIME_MAPS, MAPS
from pipeline.artifacts.runs import load_features, load_head
from pipeline.run.settings import Settings, load_settings
from pipeline.run.stage import run_stage

Array = NDArray[np.float64]


def main(dataset: str) -> None:
    """Write per_image.csv, curves.csv, randomisation.csv (means over images), and rank_correlation.safetensors.

    The last holds Spearman's correlation with LIME for each method and run, `[R, M]`, NaN for constant maps.
    """
    settings = load_settings()
    spec, explained = settings.faithfulness, load_explained(dataset, settings)
    arrays = load_arrays(MAPS / f"{dataset}.safetensors", "maps", dataset, explained)
    with safe_open(MAPS / f"{dataset}.safetensors", "np") as file:
        levels = file.metadata()["levels"].splitlines()
    where = IMAGES / dataset / "test_masks.npy"
    masks = np.array(load_array(where)[explained.numbers]) if where.exists() else None
    features = (
        load_features(dataset, "test")[0][torch.from_numpy(explained.numbers)].float().to(explained.images.device)
    )
    seeds = [derive_seed(settings.seed, dataset, "orders", number) for number in explained.numbers]
    subject = Subject(explained.classifier.run(spec.run), explained.images, explained.labels, arrays["targets"], seeds, features, masks)  # fmt: skip
    maps = {key.removeprefix("maps/"): values for key, values in arrays.items() if key.startswith("maps/")}
    if masks is not None:
        maps["mask"] = subject.coverage()
    maps = {name: maps[name] for name in ["lime", *settings.explainers, *settings.variants, "mask"] if name in maps}

    rows, points = measure(
        subject, maps, _hard(dataset, settings, features), explained.slow, spec.cells_at_once, spec.orders
    )
    similar, random = _similarities(arrays, maps, levels, spec.constant_maps)
    passes = pd.read_csv(MAPS / f"{dataset}.csv").melt("method", ["forwards", "backwards"], "metric")
    there = rows[["method", "image"]].drop_duplicates()  # a map costs the same for every image
    rows = pd.concat([rows, similar, there.merge(passes, "inner")])
    rows = rows.dropna(subset="value")
    rows = rows.assign(dataset=dataset, image=explained.numbers[rows["image"]])
    save_table(FAITHFULNESS / dataset / "per_image.csv", rows[["dataset", "method", "metric", "image", "value"]])
    save_table(FAITHFULNESS / dataset / "curves.csv", _means(points, ["method", "curve", "cells", "share"], dataset))
    save_table(FAITHFULNESS / dataset / "randomisation.csv", _means(random, ["method", "level", "layer"], dataset))
    correlations = _with_lime(dataset, settings, features)
    with replacing(FAITHFULNESS / dataset / "rank_correlation.safetensors") as part:
        save_file(correlations, part)
    told = ", ".join(f"{name} {np.nanmean(values):.2f}" for name, values in correlations.items())
    print(f"{dataset}: rank correlation with LIME: {told}")


def _hard(dataset: str, settings: Settings, features: torch.Tensor) -> dict[str, NDArray[np.bool_]]:
    """The variants' own hard explanations, `[M, n]`."""
    run, found = settings.faithfulness.run, {}
    for key in settings.variants:
        variant, modules = load_module(dataset, key, settings)
        one = Module(modules.weight[run : run + 1].to(features.device), modules.bias[run : run + 1].to(features.device))
        found[key] = hard_explanation(variant, logits_of(variant, one(features)))[0].cpu().numpy()
    return found


def _similarities(
    arrays: dict[str, Array], maps: dict[str, Array], levels: list[str], constant_maps: str
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """How alike maps are to LIME's, to those of noisy images and to those of random classifiers, image by image.

    First the metrics, a row a method, metric and image; then every level of the cascade, by its number and layer.
    """
    rows, cascade = [], []

    def table(name: str, values: Array, **more: str | int) -> pd.DataFrame:
        return pd.DataFrame({"method": name, "image": range(len(values)), "value": values}).assign(**more)

    for name, own in maps.items():
        if name != "lime":
            values = spearman(own, maps["lime"])
            there = np.isfinite(own).all(axis=1)
            rows.append(table(name, np.where(there, scored(values, constant_maps), np.nan), metric="lime"))
        if name == "mask":
            continue
        rows.append(table(name, spearman(own, arrays[f"noise/{name}"]), metric="stability"))
        random = [np.abs(spearman(own, others)) for others in arrays[f"random/{name}"]]
        rows.append(table(name, random[0], metric="randomised_head"))
        rows.append(table(name, random[-1], metric="randomised_network"))
        cascade += [table(name, of_level, level=n, layer=levels[n]) for n, of_level in enumerate(random)]
        if f"retrained/{name}" in arrays:
            head, network = (np.abs(spearman(own, others)) for others in arrays[f"retrained/{name}"])
            rows += [table(name, head, metric="retrained_head"), table(name, network, metric="retrained_network")]
    return pd.concat(rows), pd.concat(cascade)


def _means(points: pd.DataFrame, by: list[str], dataset: str) -> pd.DataFrame:
    """Mean, standard error over images and their number."""
    groups = points.dropna(subset="value").groupby(by, sort=False)["value"]
    table = groups.agg(mean="mean", standard_error="sem", n="count").reset_index()
    table.insert(0, "dataset", dataset)
    return table


def _with_lime(dataset: str, settings: Settings, features: torch.Tensor) -> dict[str, Array]:
    """Table 2: Spearman's correlation with LIME of each method's maps, `[R, M]`, all runs."""
    lime = load_file(LIME_MAPS / f"{dataset}.safetensors")
    head = load_head(HEADS / f"{dataset}.safetensors")
    targets = torch.from_numpy(lime["targets"]).to(features.device)
    maps = {"lime": lime["maps_again"]}
    maps["cam"] = cam(features, head.weight.to(features.device), targets).double().cpu().numpy()
    maps["grad_cam"] = maps["cam"].clip(min=0)
    for key in settings.variants:
        variant, modules = load_module(dataset, key, settings)
        module = Module(modules.weight.to(features.device), modules.bias.to(features.device))
        soft = soft_weights(logits_of(variant, module(features)).double(), variant.temperature)
        maps[key] = soft.cpu().numpy()
        if isinstance(variant, BoundedLogits) and variant.threshold_factor:
            cut = threshold(soft, variant.threshold_factor, variant.threshold_rule)
            maps[f"{key}, after the threshold"] = cut.cpu().numpy()
    return {name: spearman(values, lime["maps"]) for name, values in maps.items()}


if __name__ == "__main__":
    run_stage(main)
