"""Stage `faithfulness@DATASET`: every metric of every method's maps, image by image, in data/faithfulness/DATASET/."""

import numpy as np
import pandas as pd
import torch
from safetensors import safe_open

from bla.experiments.faithfulness.experiment import hard_explanations, means_over_images, similarities
from bla.metrics.measure import Subject, measure
from bla.runtime.seeds import derive_seed
from pipeline.artifacts.explained_images import load_explained
from pipeline.artifacts.features import load_features
from pipeline.artifacts.images import load_masks
from pipeline.artifacts.maps import FAITHFULNESS, MAPS, load_maps
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
    masks, chosen = load_masks(dataset, "test"), torch.from_numpy(numbers)
    features = load_features(dataset, "test")[0][chosen].float().to(device)
    seeds = [derive_seed(settings.seed, dataset, "orders", number) for number in numbers]
    model, masks = explained.classifier.run(spec.run), None if masks is None else np.array(masks[numbers])
    subject = Subject(model, explained.images, explained.labels, arrays["targets"], seeds, features, masks)
    maps = {key.removeprefix("maps/"): values for key, values in arrays.items() if key.startswith("maps/")}
    maps |= {} if masks is None else {"mask": subject.coverage()}
    maps = {name: maps[name] for name in ["lime", *settings.explainers, *settings.variants, "mask"] if name in maps}
    loaded = {key: load_variant(dataset, key, settings) for key in settings.variants}
    modules = {key: (variant, module.run(spec.run).to(device)) for key, (variant, _, module) in loaded.items()}

    hard = hard_explanations(features, modules)
    rows, points = measure(subject, maps, hard, explained.slow, spec.cells_at_once, spec.orders)
    similar, random = similarities(arrays, maps, levels, spec.constant_maps)
    passes = load_table(MAPS / f"{dataset}.csv").melt("method", ["forwards", "backwards"], "metric")
    explained_by = rows[["method", "image"]].drop_duplicates()  # a map costs the same for every image
    rows = pd.concat([rows, similar, explained_by.merge(passes, "inner")]).dropna(subset="value")
    rows = rows.assign(dataset=dataset, image=numbers[rows["image"]])
    save_table(FAITHFULNESS / dataset / "per_image.csv", rows[["dataset", "method", "metric", "image", "value"]])
    curves, cascade = (
        means_over_images(points, ["method", "curve", "cells", "share"]),
        means_over_images(random, ["method", "level", "layer"]),
    )
    for name, table in (("curves", curves), ("randomisation", cascade)):
        table.insert(0, "dataset", dataset)
        save_table(FAITHFULNESS / dataset / f"{name}.csv", table)
    print(f"{dataset}: {rows['metric'].nunique()} metrics of {len(maps)} methods on {len(numbers)} images")
