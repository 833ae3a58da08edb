"""Stage `errors`: maps of the predicted and of the true class, where the classifier is wrong, in reports/."""

from functools import partial

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from bla.experiments.errors.tables import COLUMNS, class_dependence
from bla.experiments.faithfulness.figures import sentence, side_by_side
from bla.networks.patches import cell_means
from pipeline.artifacts.features import load_grid
from pipeline.artifacts.figures import FIGURES, Pictures, remove_others, save_pictures
from pipeline.artifacts.images import captions, load_labels
from pipeline.artifacts.tables import save_tables
from pipeline.run.class_maps import ClassMaps, class_maps
from pipeline.run.settings import load_settings

DRAWN = 4
"""Wrong images in a picture."""


def main() -> None:
    """Write errors.csv, and errors/DATASET.png for each dataset."""
    settings, pictures, tables = load_settings(), Pictures(), []
    for dataset in settings.datasets:
        path, labels = FIGURES / "errors" / f"{dataset}.png", np.array(load_labels(dataset, "test"))
        if labels.ndim > 1:
            pictures[path] = partial(sentence, f"{dataset}: not drawn, because images have several true classes")
            continue
        found, grid = class_maps(dataset, settings, labels), load_grid(dataset)
        cells = {name: np.stack([cell_means(of, grid).flatten(1).numpy() for of in maps]) for name, maps in found.maps.items()}  # fmt: skip
        table = class_dependence(cells, found.wrong[found.numbers])
        tables.append(table.assign(dataset=dataset, title=table["method"].map(found.titles)))
        heading = (
            f"{dataset}, run {settings.faithfulness.run}: {found.wrong.sum()} of {len(labels)} test images are wrong"
        )
        pictures[path] = _picture(found, heading, [name.replace("\n", " ") for name in captions(dataset)], grid)
        print(heading)
    save_tables("errors", {"": pd.concat(tables)[COLUMNS] if tables else pd.DataFrame(columns=COLUMNS)})
    save_pictures(pictures)
    remove_others(FIGURES / "errors", pictures)


def _picture(found: ClassMaps, heading: str, names: list[str], grid: tuple[int, int]) -> "partial[Figure]":
    """The maps of both classes of some wrong images, or a sentence if there is nothing to draw."""
    shown = np.flatnonzero(found.wrong[found.numbers])[:DRAWN]
    if not len(shown) or not found.maps:
        return partial(sentence, heading)
    drawn = {
        f"{found.titles[name]}: {what}": maps[place][shown].numpy()
        for name, maps in found.maps.items()
        for place, what in enumerate(("predicted", "true"))
    }
    texts = [
        f"predicted: {names[predicted]}\ntrue: {names[true]}" for predicted, true in found.classes[:, shown].T.tolist()
    ]
    return partial(side_by_side, found.images[shown], drawn, texts, heading, grid)
