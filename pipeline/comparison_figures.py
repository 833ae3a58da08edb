"""Stage `comparison_figures@DATASET`: the methods side by side, in reports/figures/."""

import math

import numpy as np
import pandas as pd
from safetensors.numpy import load_file

from bla.comparison import summary
from bla.faithfulness_figures import against_lime, cascade, curves, rank_map, side_by_side
from bla.figures import save_figure
from bla.metrics.rank_correlation import spearman
from pipeline.files import load_array, replacing
from pipeline.paths import FAITHFULNESS, FIGURES, IMAGES, MAPS
from pipeline.settings import load_settings
from pipeline.stage import run_stage

PICTURED = 5
SCATTERED = 3


def main(dataset: str) -> None:
    """Draw maps, their agreement with LIME, curves, ranks and the random cascade."""
    settings = load_settings()
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
    numbers = arrays["images"][shown]
    images = load_array(IMAGES / dataset / "test_images.npy")[numbers]
    classes = pd.read_csv(IMAGES / dataset / "classes.csv", dtype=str, keep_default_na=False)["name"]
    captions = [
        f"“{classes[int(target)].replace('_', ' ')}”".replace("$", r"\$") for target in arrays["targets"][shown]
    ]
    side = math.isqrt(arrays["maps/lime"].shape[1])
    squares = {title: values[shown].reshape(-1, side, side) for title, values in maps.items()}
    run = settings.faithfulness.run
    heading = f"{dataset}, run {run}: what each method holds to matter for the predicted class (at the left), blue little, red much"
    figures = {"maps": side_by_side(images, squares, captions, heading)}

    few = shown[:SCATTERED]
    lime = maps["LIME"][few]
    others = {title: values[few] for title, values in maps.items() if title != "LIME"}
    figures["lime"] = against_lime(
        lime, others, {t: spearman(v, lime) for t, v in others.items()}, captions[:SCATTERED]
    )
    figures["curves"] = curves(points, with_mask)
    figures["ranks"] = rank_map(summary(per_image), with_mask, f"{dataset}, run {run}")
    figures["cascade"] = cascade(random, methods, side**2)
    for name, figure in figures.items():
        with replacing(FIGURES / f"{name}_{dataset}.png") as part:
            save_figure(figure, part, "png")


if __name__ == "__main__":
    run_stage(main)
