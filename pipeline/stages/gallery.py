"""Stage `gallery@DATASET`: pictures of what the columns of Table 1 keep, in reports/figures/."""

from functools import partial

from bla.base.paper import COLUMNS
from bla.base.specs import L2XF
from bla.experiments.explanations.figures import explanations, overview
from pipeline.artifacts.figures import FIGURES, Pictures, remove_others, save_pictures
from pipeline.artifacts.images import chosen_images
from pipeline.run.predictions import maps_of, predictions_of
from pipeline.run.settings import Settings, load_settings

OVERVIEW_IMAGES = 6


def main(dataset: str) -> None:
    """Draw the columns' explanations, in explanations/DATASET/ and an overview."""
    columns = _columns(dataset, load_settings())
    save_pictures(columns)
    remove_others(FIGURES / "explanations" / dataset, columns)


def _columns(dataset: str, settings: Settings) -> Pictures:
    """Input, logits, soft weights, hard explanation and overlay of some test images, a picture per variant.

    Also an overview: some test images, with the explanations of all variants below.
    """
    numbers, images, classes = chosen_images(dataset, settings.gallery_images)
    drawn: Pictures = {}
    for variant, values in maps_of(dataset, settings, numbers).items():
        heading = f"{COLUMNS.get(variant, variant)} on {dataset}: run {settings.faithfulness.run}, test images, true class above"
        if isinstance(settings.variant[variant], L2XF):
            heading += "\n(one sample of the soft weights)"
        path = FIGURES / "explanations" / dataset / f"{variant}.png"
        drawn[path] = partial(explanations, images, *values, classes, heading)
    numbers, images, classes = chosen_images(dataset, OVERVIEW_IMAGES)
    explained = {variant: hard for variant, (_, _, hard) in maps_of(dataset, settings, numbers).items()}
    predicted = predictions_of(dataset, settings, numbers)
    return drawn | {FIGURES / f"overview_{dataset}.png": partial(overview, images, explained, predicted, classes)}
