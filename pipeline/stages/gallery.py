"""Stage `gallery@DATASET`: pictures of what the columns and the methods look at, in reports/figures/."""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from safetensors.numpy import load_file

from bla.base.specs import L2XF
from bla.experiments.faithfulness.figures import against_lime, cascade, curves, rank_map, side_by_side
from bla.experiments.faithfulness.tables import summary
from bla.experiments.table1.tables import title
from bla.metrics.rank_correlation import spearman
from bla.plotting.figures import explanations, overview
from pipeline.artifacts.files import load_array
from pipeline.artifacts.paths import FAITHFULNESS, FIGURES, IMAGES, MAPS
from pipeline.artifacts.pictures import chosen_images, class_names, save_pictures
from pipeline.artifacts.runs import load_maps
from pipeline.run.settings import Settings, load_settings
from pipeline.run.stage import run_stage

Pictures = dict[Path, Callable[[], Figure]]

OVERVIEW_IMAGES = 6
PICTURED = 5
"""Test images whose maps by every method are drawn."""
SCATTERED = 3
"""Of those, the ones whose maps are drawn against LIME's, cell by cell."""


def main(dataset: str) -> None:
    """Draw the columns' explanations, in explanations/DATASET/ and an overview, and the methods side by side."""
    settings, place = load_settings(), FIGURES / "explanations" / dataset
    explained = _columns(dataset, settings, place)
    save_pictures(_methods(dataset, settings) | explained)  # those that take longest first
    for path in set(place.iterdir()) - set(explained):
        path.unlink()  # of variants that are no more


def _columns(dataset: str, settings: Settings, place: Path) -> Pictures:
    """Input, logits, soft weights, hard explanation and overlay of some test images, a picture a variant, of run 0.

    And an overview: some test images, under each what every variant keeps of it.
    """
    own = {variant: load_maps(dataset, variant) for variant in settings.variants}
    numbers, images, captions = chosen_images(dataset, settings.gallery_images)
    pictures: Pictures = {}
    for variant, maps in own.items():
        heading = f"{title(variant)} on {dataset}: run 0, test images, true class above"
        if isinstance(settings.variant[variant], L2XF):
            heading += "\n(one sample of the soft weights)"
        logits, soft, hard = (values[numbers] for values in maps)
        pictures[place / f"{variant}.png"] = partial(explanations, images, logits, soft, hard, captions, heading)
    numbers, images, captions = chosen_images(dataset, OVERVIEW_IMAGES)
    kept = {variant: maps[2][numbers] for variant, maps in own.items()}
    pictures[FIGURES / f"overview_{dataset}.png"] = partial(overview, images, kept, captions)
    return pictures


def _methods(dataset: str, settings: Settings) -> Pictures:
    """Every method's maps, their agreement with LIME, curves, ranks and the random cascade."""
    arrays = load_file(MAPS / f"{dataset}.safetensors")
    methods = pd.read_csv(MAPS / f"{dataset}.csv")
    per_image = pd.read_csv(FAITHFULNESS / dataset / "per_image.csv")
    points = pd.read_csv(FAITHFULNESS / dataset / "curves.csv")
    random = pd.read_csv(FAITHFULNESS / dataset / "randomisation.csv")
    mask = pd.DataFrame([{"method": "mask", "title": "object mask", "learned": False, "control": True}])
    with_mask = pd.concat([methods, mask]) if (points["method"] == "mask").any() else methods

    maps = {str(row.title): arrays[f"maps/{row.method}"] for row in methods.itertuples()}
    whole = np.nonzero(np.all([np.isfinite(values).all(axis=1) for values in maps.values()], axis=0))[0]
    count = min(PICTURED, len(whole))
    shown = whole[(2 * np.arange(count) + 1) * len(whole) // (2 * count)]  # they are ordered by class: some of each
    images = load_array(IMAGES / dataset / "test_images.npy")[arrays["images"][shown]]
    names = class_names(dataset)
    captions = [f"“{names[int(target)]}”" for target in arrays["targets"][shown]]
    side = math.isqrt(arrays["maps/lime"].shape[1])
    squares = {name: values[shown].reshape(-1, side, side) for name, values in maps.items()}
    run = settings.faithfulness.run
    heading = f"{dataset}, run {run}: what each method holds to matter for the predicted class (at the left), blue little, red much"

    few = shown[:SCATTERED]
    lime = maps["LIME"][few]
    others = {name: values[few] for name, values in maps.items() if name != "LIME"}
    agreement = {name: spearman(values, lime) for name, values in others.items()}
    pictures: Pictures = {
        FIGURES / f"lime_{dataset}.png": partial(against_lime, lime, others, agreement, captions[:SCATTERED]),
        FIGURES / f"maps_{dataset}.png": partial(side_by_side, images, squares, captions, heading),
        FIGURES / f"ranks_{dataset}.png": partial(rank_map, summary(per_image), with_mask, f"{dataset}, run {run}"),
        FIGURES / f"curves_{dataset}.png": partial(curves, points, with_mask),
        FIGURES / f"cascade_{dataset}.png": partial(cascade, random, methods, side**2),
    }
    return pictures


if __name__ == "__main__":
    run_stage(main)
