"""Stage `figures`: Figure 3, and the same images under every column, in reports/figures/."""

import pandas as pd

from bla.figures import figure_three, overview, save_figure
from pipeline.files import replacing
from pipeline.gallery import chosen_images
from pipeline.paths import FIGURES, TABLES
from pipeline.results import load_maps
from pipeline.settings import load_settings
from pipeline.stage import run_stage

OVERVIEW_IMAGES = 6


def main() -> None:
    """Draw figure3.svg and .png, and overview.png of the first dataset."""
    settings = load_settings()
    runs = pd.read_csv(TABLES / "runs.csv")
    for kind in ("svg", "png"):
        with replacing(FIGURES / f"figure3.{kind}") as part:
            save_figure(figure_three(runs), part, kind)
    dataset = settings.datasets[0]
    numbers, images, captions = chosen_images(dataset, OVERVIEW_IMAGES)
    hard = {variant: load_maps(dataset, variant)[2][numbers] for variant in settings.variants}
    with replacing(FIGURES / "overview.png") as part:
        save_figure(overview(images, hard, captions), part, "png")


if __name__ == "__main__":
    run_stage(main)
