"""Stage `overview@DATASET`: the same test images under every column, in reports/figures/."""

from bla.figures import overview, save_figure
from pipeline.files import replacing
from pipeline.gallery import chosen_images
from pipeline.paths import FIGURES
from pipeline.results import load_maps
from pipeline.settings import load_settings
from pipeline.stage import run_stage

OVERVIEW_IMAGES = 6


def main(dataset: str) -> None:
    """Draw some inputs, and under each what run 0 of every variant keeps of it."""
    numbers, images, captions = chosen_images(dataset, OVERVIEW_IMAGES)
    hard = {variant: load_maps(dataset, variant)[2][numbers] for variant in load_settings().variants}
    with replacing(FIGURES / f"overview_{dataset}.png") as part:
        save_figure(overview(images, hard, captions), part, "png")


if __name__ == "__main__":
    run_stage(main)
