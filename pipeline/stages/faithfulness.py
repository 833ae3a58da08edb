"""Stage `faithfulness@DATASET`: every metric of every method's maps, image by image, in data/faithfulness/DATASET/."""

import pandas as pd
import torch
from safetensors import safe_open

from bla.experiments.faithfulness.experiment import (
    best_sets,
    hard_explanations,
    mean_cascade,
    means_over_images,
    similarities,
)
from bla.metrics.measure import Subject, measure
from bla.runtime.seeds import derive_seed
from pipeline.artifacts.explained_images import load_explained
from pipeline.artifacts.features import load_features, load_grid
from pipeline.artifacts.images import object_masks
from pipeline.artifacts.maps import FAITHFULNESS, MAPS, cell_maps, load_maps, load_sets
from pipeline.artifacts.models import load_variant
from pipeline.artifacts.tables import load_table, save_table
from pipeline.run.settings import load_settings


def main(dataset: str) -> None:
    """Write per_image.csv, curves.csv and randomisation.csv (means over images)."""
    settings = load_settings()
    spec, explained = settings.faithfulness, load_explained(dataset, settings)
    numbers, device = explained.numbers, explained.images.device
    arrays = load_maps(MAPS / f"{dataset}.safetensors", "maps", dataset, numbers)
    with safe_open(MAPS / f"{dataset}.safetensors", "np") as file:
        levels = file.metadata()["levels"].splitlines()
    grid, targets = load_grid(dataset), arrays["targets"]
    features = load_features(dataset, "test")[0][torch.from_numpy(numbers)].float().to(device)
    seeds = [derive_seed(settings.seed, dataset, "orders", number) for number in numbers]
    model, masks = explained.classifier_of(spec.run), object_masks(dataset, "test", numbers, targets)
    subject = Subject(model, explained.images, explained.labels, targets, seeds, features, grid, masks)
    maps = cell_maps(arrays, grid) | ({} if masks is None else {"mask": subject.coverage()})
    order = ["lime", *settings.explainers, *settings.learned_explainers, *settings.variants, "mask"]
    maps = {name: maps[name] for name in order if name in maps}
    loaded = {key: load_variant(dataset, key, settings) for key in settings.variants}
    modules = {key: (variant, module.run(spec.run).to(device)) for key, (variant, _, module) in loaded.items()}

    hard = hard_explanations(features, modules) | best_sets(load_sets(dataset), features.shape[1])
    rows, points = measure(subject, maps, hard, explained.slow, spec.cells_at_once, spec.orders, spec.tied_pixels)
    methods = load_table(MAPS / f"{dataset}.csv")
    random_controls = set(methods.loc[methods["control"] & methods["seeded"], "method"])
    similar, random = similarities(arrays, maps, levels, spec.constant_maps, random_controls)
    passes = methods.melt("method", ["forwards", "backwards"], "metric")
    explained_by = rows[["method", "image"]].drop_duplicates()  # a map costs the same for all images
    rows = pd.concat([rows, similar, explained_by.merge(passes, "inner")]).dropna(subset="value")
    rows = rows.assign(dataset=dataset, image=numbers[rows["image"]], explained_class=targets[rows["image"]])
    rows["ranked"] = rows["image"].isin(numbers[explained.slow])
    columns = ["dataset", "method", "metric", "image", "explained_class", "ranked", "value"]
    save_table(FAITHFULNESS / dataset / "per_image.csv", rows[columns])
    curves = means_over_images(points, ["method", "curve", "cells", "share"])
    for name, table in (("curves", curves), ("randomisation", mean_cascade(random))):
        table.insert(0, "dataset", dataset)
        save_table(FAITHFULNESS / dataset / f"{name}.csv", table)
    print(f"{dataset}: {rows['metric'].nunique()} metrics of {len(maps)} methods on {len(numbers)} images")
