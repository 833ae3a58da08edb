"""Stage `gallery@DATASET`: pictures of what the columns of Table 1 keep, in reports/figures/."""

from functools import partial

from bla.base.paper import COLUMNS
from bla.base.specs import L2XF
from bla.experiments.explanations.figures import explanations, overview
from pipeline.artifacts.figures import FIGURES, Pictures, remove_others, save_pictures
from pipeline.artifacts.images import chosen_images, load_labels
from pipeline.maps.image_names import image_captions
from pipeline.run.predictions import maps_of, predictions_of
from pipeline.run.settings import Settings, load_settings

OVERVIEW_IMAGES = 6
ON_A_PAGE = 10
"""Images in one picture; the next ones are in VARIANT-2.png, VARIANT-3.png and so on."""


def main(dataset: str) -> None:
    """Draw the columns' explanations, in explanations/DATASET/ and an overview."""
    columns = _columns(dataset, load_settings())
    save_pictures(columns)
    remove_others(FIGURES / "explanations" / dataset, columns)


def _columns(dataset: str, settings: Settings) -> Pictures:
    """Input, logits, soft weights, hard explanation and overlay of some test images, pictures per variant.

    Also an overview: some test images, with the explanations of all variants below.
    """
    count = settings.gallery_images or len(load_labels(dataset, "test"))
    numbers, images, _ = chosen_images(dataset, count)
    names = image_captions(dataset, numbers)
    pages = [slice(start, start + ON_A_PAGE) for start in range(0, len(numbers), ON_A_PAGE)]
    drawn: Pictures = {}
    for variant, values in maps_of(dataset, settings, numbers).items():
        heading = f"{COLUMNS.get(variant, variant)} on {dataset}: run {settings.faithfulness.run}, test images, true class and file above"
        if isinstance(settings.variant[variant], L2XF):
            heading += "\n(one sample of the soft weights)"
        for page, part in enumerate(pages, start=1):
            path = FIGURES / "explanations" / dataset / f"{variant}{f'-{page}' if page > 1 else ''}.png"
            logits, soft, hard = (of_all[part] for of_all in values)
            drawn[path] = partial(explanations, images[part], logits, soft, hard, names[part], heading)
    numbers, images, classes = chosen_images(dataset, OVERVIEW_IMAGES)
    explained = {variant: hard for variant, (_, _, hard) in maps_of(dataset, settings, numbers).items()}
    predicted = predictions_of(dataset, settings, numbers)
    return drawn | {FIGURES / f"overview_{dataset}.png": partial(overview, images, explained, predicted, classes)}
