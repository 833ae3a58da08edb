"""Stage `gallery@DATASET`: what run 0 of every column looks at, in reports/figures/explanations/DATASET/ and an overview."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bla.datasets import spread_over_classes
from bla.figures import explanations, overview, save_figure
from bla.specs import L2XF
from bla.tables import title
from pipeline.files import load_array, replacing
from pipeline.paths import FIGURES, IMAGES
from pipeline.results import load_maps
from pipeline.settings import load_settings
from pipeline.stage import run_stage


def chosen_images(dataset: str, count: int) -> tuple[list[int], NDArray[np.uint8], list[str]]:
    """The pictured test images, spread evenly over the classes: numbers, pixels `[M, H, W, 3]`, class names."""
    images = load_array(IMAGES / dataset / "test_images.npy")
    labels = load_array(IMAGES / dataset / "test_labels.npy")
    classes = pd.read_csv(IMAGES / dataset / "classes.csv", dtype=str, keep_default_na=False)["name"]
    numbers = spread_over_classes(labels, count).tolist()
    return numbers, images[numbers], [classes[int(labels[n])].replace("_", " ").replace("$", r"\$") for n in numbers]


OVERVIEW_IMAGES = 6


def main(dataset: str) -> None:
    """Draw input, logits, soft weights, hard explanation and overlay of some test images, a picture a variant.

    And an overview: some test images, under each what every variant keeps of it.
    """
    settings, place = load_settings(), FIGURES / "explanations" / dataset
    own = {variant: load_maps(dataset, variant) for variant in settings.variants}
    numbers, images, captions = chosen_images(dataset, settings.gallery_images)
    pictures = {}
    for variant, maps in own.items():
        heading = f"{title(variant)} on {dataset}: run 0, test images, true class above"
        if isinstance(settings.variant[variant], L2XF):
            heading += "\n(one sample of the soft weights)"
        logits, soft, hard = (values[numbers] for values in maps)
        pictures[place / f"{variant}.png"] = explanations(images, logits, soft, hard, captions, heading)
    numbers, images, captions = chosen_images(dataset, OVERVIEW_IMAGES)
    kept = {variant: maps[2][numbers] for variant, maps in own.items()}
    pictures[FIGURES / f"overview_{dataset}.png"] = overview(images, kept, captions)
    for path, figure in pictures.items():
        with replacing(path) as part:
            save_figure(figure, part, "png")
    for path in set(place.iterdir()) - set(pictures):
        path.unlink()  # of variants that are no more


if __name__ == "__main__":
    run_stage(main)
