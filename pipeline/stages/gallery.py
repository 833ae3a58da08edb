"""Stage `gallery@DATASET`: pictures of the columns' and the methods' explanations, in reports/figures/."""

from functools import partial

import numpy as np

from bla.base.paper import COLUMNS
from bla.base.specs import L2XF
from bla.experiments.explanations.figures import explanations, overview
from bla.experiments.faithfulness.figures import pictures
from pipeline.artifacts.arrays import load_arrays
from pipeline.artifacts.evaluation import load_variant_maps
from pipeline.artifacts.features import load_grid
from pipeline.artifacts.figures import FIGURES, Pictures, remove_others, save_pictures
from pipeline.artifacts.images import captions, chosen_images, load_images
from pipeline.artifacts.maps import FAITHFULNESS, MAPS, cell_maps, load_sets, own_maps
from pipeline.artifacts.tables import load_table
from pipeline.run.predictions import predictions_of
from pipeline.run.settings import Settings, load_settings

OVERVIEW_IMAGES = 6


def main(dataset: str) -> None:
    """Draw the columns' explanations, in explanations/DATASET/ and an overview, and the methods side by side."""
    settings, place = load_settings(), FIGURES / "explanations" / dataset
    columns = _columns(dataset, settings)
    save_pictures(_methods(dataset, settings) | columns)  # the slowest first
    remove_others(place, columns)


def _columns(dataset: str, settings: Settings) -> Pictures:
    """Input, logits, soft weights, hard explanation and overlay of some test images of run 0, a picture per variant.

    Also an overview: some test images, with the explanations of all variants below.
    """
    maps = {variant: load_variant_maps(dataset, variant) for variant in settings.variants}
    numbers, images, classes = chosen_images(dataset, settings.gallery_images)
    drawn: Pictures = {}
    for variant, values in maps.items():
        heading = f"{COLUMNS.get(variant, variant)} on {dataset}: run 0, test images, true class above"
        if isinstance(settings.variant[variant], L2XF):
            heading += "\n(one sample of the soft weights)"
        logits, soft, hard = (of_all_images[numbers] for of_all_images in values)
        path = FIGURES / "explanations" / dataset / f"{variant}.png"
        drawn[path] = partial(explanations, images, logits, soft, hard, classes, heading)
    numbers, images, classes = chosen_images(dataset, OVERVIEW_IMAGES)
    explained = {variant: values[2][numbers] for variant, values in maps.items()}
    predicted = predictions_of(dataset, settings, np.array(numbers))
    return drawn | {FIGURES / f"overview_{dataset}.png": partial(overview, images, explained, predicted, classes)}


def _methods(dataset: str, settings: Settings) -> Pictures:
    """Every method's maps, their agreement with LIME, curves, ranks and the random cascade."""
    arrays, methods = load_arrays(MAPS / f"{dataset}.safetensors"), load_table(MAPS / f"{dataset}.csv")
    per_image, points, random, parts = (load_table(FAITHFULNESS / dataset / f"{name}.csv") for name in ("per_image", "curves", "randomisation", "parts"))  # fmt: skip
    images, run, grid = load_images(dataset, "test")[arrays["images"]], settings.faithfulness.run, load_grid(dataset)
    best = {name: [of_image[0] if of_image else [] for of_image in sets] for name, sets in load_sets(dataset).items()}
    maps, tables = (own_maps(arrays), cell_maps(arrays, grid)), (methods, per_image, points, random, parts)
    drawn = pictures(f"{dataset}, run {run}", *maps, best, grid, *tables, images, arrays["targets"], captions(dataset))
    return {FIGURES / f"{name}_{dataset}.png": draw for name, draw in drawn.items()}
