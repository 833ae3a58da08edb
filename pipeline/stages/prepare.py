"""Stage `prepare@DATASET`: the images of a dataset as an array per split, in data/images/DATASET/."""

from pipeline.artifacts.images import IMAGES
from pipeline.artifacts.preparation import prepare_images
from pipeline.run.settings import load_settings


def main(dataset: str) -> None:
    """Write arrays of images, labels and masks, and tables of classes, masks, boxes, and a manifest."""
    settings = load_settings()
    prepare_images(IMAGES / dataset, settings.dataset[dataset].images, settings.seed)
