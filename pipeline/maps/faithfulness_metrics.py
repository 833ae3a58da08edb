"""All metrics of a dataset's maps but those of interventions."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from safetensors import safe_open
from tqdm import tqdm

from bla.experiments.faithfulness.experiment import (
    best_sets,
    hard_explanations,
    mean_cascade,
    means_over_images,
    similarities,
)
from bla.metrics.measure import Subject, measure
from bla.runtime.seeds import derive_seed
from pipeline.artifacts.explained_images import ExplainedImages, explained_classes, load_explained
from pipeline.artifacts.features import explained_features, load_grid
from pipeline.artifacts.images import object_masks
from pipeline.artifacts.maps import MAPS, cell_maps, load_sets
from pipeline.artifacts.models import load_variant
from pipeline.artifacts.tables import load_table
from pipeline.maps.all_runs import explained_by
from pipeline.run.settings import Settings

POINTS = ["method", "curve", "cells", "share"]


def all_metrics(
    dataset: str,
    settings: Settings,
    explained: ExplainedImages,
    arrays: dict[str, Any],
    masks: NDArray[np.bool_] | None,
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Scores, a row per method, metric and image; the curves' means over images; the cascade's means."""
    spec, numbers, device = settings.faithfulness, explained.numbers, explained.images.device
    with safe_open(MAPS / f"{dataset}.safetensors", "np") as file:
        levels = file.metadata()["levels"].splitlines()
    grid, targets = load_grid(dataset), arrays["targets"]
    features = explained_features(dataset, numbers).float().to(device)
    seeds = [derive_seed(settings.seed, dataset, "orders", number) for number in numbers]
    model = explained.classifier_of(spec.run)
    subject = Subject(model, explained.images, explained.labels, targets, seeds, features, grid, masks)
    maps = cell_maps(arrays, grid) | ({} if masks is None else {"mask": subject.coverage()})
    order = ["lime", *settings.explainers, *settings.learned_explainers, *settings.variants, "mask"]
    maps = {name: maps[name] for name in order if name in maps}
    loaded = {key: load_variant(dataset, key, settings) for key in settings.variants}
    modules = {key: (variant, module.run(spec.run).to(device)) for key, (variant, _, module) in loaded.items()}

    hard = hard_explanations(features, modules) | best_sets(load_sets(dataset), features.shape[1])
    rows, points = measure(subject, maps, hard, explained.slow, spec.cells_at_once, spec.orders, spec.tied_pixels)
    methods = load_table(MAPS / f"{dataset}.csv")
    ignore_image = set(methods.loc[methods["ignores_image"], "method"])
    similar, random = similarities(arrays, maps, levels, spec.constant_maps, ignore_image)
    passes = methods.melt("method", ["forwards", "backwards"], "metric")
    explained_by = rows[["method", "image"]].drop_duplicates()  # a map costs the same for all images
    rows = pd.concat([rows, similar, explained_by.merge(passes, "inner")]).dropna(subset="value")
    return rows, means_over_images(points, POINTS), mean_cascade(random)


def metrics_of_other_runs(dataset: str, settings: Settings) -> pd.DataFrame:
    """Scores of variants and learned methods in all runs but `faithfulness.run`: a row per method, metric, image number and run.

    Each run explains the class that BL of this run predicts. Metrics that occlude images are measured on the first
    `faithfulness.occluded_runs` runs, deletion and insertion on the slow images; all others on every run.
    """
    explained, grid = load_explained(dataset, settings), load_grid(dataset)
    spec, numbers, device = settings.faithfulness, explained.numbers, explained.images.device
    features = explained_features(dataset, numbers).float().to(device)
    seeds = [derive_seed(settings.seed, dataset, "orders", number) for number in numbers]
    classes = explained_classes(explained)
    found = {name: explain(numbers, classes) for name, explain in explained_by(dataset, settings).items()}
    targets = classes.cpu().numpy()  # one row for a network with its own tail, the same in all runs
    tables = []
    runs = range(max((len(of.soft) for of in found.values()), default=0))
    for run in tqdm([run for run in runs if run != spec.run], desc=f"{dataset} runs", disable=None):
        of_run = {name: of for name, of in found.items() if 1 < len(of.soft) > run}  # a single run is the measured one
        masks = object_masks(dataset, "test", numbers, targets[run % len(targets)])
        subject = Subject(explained.classifier_of(run), explained.images, explained.labels, targets[run % len(targets)], seeds, features, grid, masks)  # fmt: skip
        hard = {name: of.hard[run] for name, of in of_run.items() if name in settings.variants}
        occlude = run < spec.occluded_runs
        slow = explained.slow & occlude
        rows, _ = measure(subject, {name: of.soft[run] for name, of in of_run.items()}, hard, slow, spec.cells_at_once, spec.orders, spec.tied_pixels, occlude)  # fmt: skip
        tables.append(rows.assign(dataset=dataset, run=run, image=numbers[rows["image"]]))
    return pd.concat([pd.DataFrame(columns=["dataset", "method", "metric", "image", "run", "value"]), *tables]).dropna(
        subset="value"
    )
