"""Stage `gallery@DATASET`: pictures of what the columns of Table 1 keep, in reports/figures/."""

from functools import partial

import numpy as np

from bla.base.paper import COLUMNS
from bla.base.specs import L2XF
from bla.experiments.explanations.figures import explanations, overview
from pipeline.artifacts.evaluation import load_variant_maps
from pipeline.artifacts.figures import FIGURES, Pictures, remove_others, save_pictures
from pipeline.artifacts.images import chosen_images
from pipeline.run.predictions import predictions_of
from pipeline.run.settings import Settings, load_settings

OVERVIEW_IMAGES = 6


def main(dataset: str) -> None:
    """Draw the columns' explanations, in explanations/DATASET/ and an overview."""
    columns = _columns(dataset, load_settings())
    save_pictures(columns)
    remove_others(FIGURES / "explanations" / dataset, columns)


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
