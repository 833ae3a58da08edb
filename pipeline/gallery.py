"""Stage `gallery@DATASET-VARIANT`: what run 0 of a column looks at, in reports/figures/."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bla.datasets import spread_over_classes
from bla.figures import explanations, save_figure
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


def main(dataset: str, variant: str) -> None:
    """Draw input, logits, soft weights, hard explanation and overlay of some test images."""
    settings = load_settings()
    numbers, images, captions = chosen_images(dataset, settings.gallery_images)
    logits, soft, hard = (maps[numbers] for maps in load_maps(dataset, variant))
    heading = f"{title(variant)} on {dataset}: run 0, test images, true class above"
    if isinstance(settings.variant[variant], L2XF):
        heading += "\n(one sample of the soft weights)"
    figure = explanations(images, logits, soft, hard, captions, heading)
    with replacing(FIGURES / f"explanations_{dataset}_{variant}.png") as part:
        save_figure(figure, part, "png")


if __name__ == "__main__":
    run_stage(main)
