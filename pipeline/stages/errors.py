"""Stage `errors`: maps of the predicted and of the true class, where the classifier is wrong, in reports/."""

from functools import partial

import numpy as np
import pandas as pd

from bla.experiments.errors.figures import both_classes
from bla.experiments.errors.tables import COLUMNS, class_dependence
from bla.experiments.runs import DID_NOT_TRAIN
from bla.networks.patches import cell_means
from bla.plotting.maps import sentence
from pipeline.artifacts.features import load_grid
from pipeline.artifacts.figures import FIGURES, Pictures, remove_others, save_pictures
from pipeline.artifacts.images import captions, load_labels
from pipeline.artifacts.tables import save_tables, untrained_methods
from pipeline.maps.class_maps import class_maps
from pipeline.run.settings import load_settings

DRAWN = 4
"""Wrong images in a picture."""


def main() -> None:
    """Write errors.csv, and errors/DATASET.png for each dataset."""
    settings, pictures, tables, untrained = load_settings(), Pictures(), [], untrained_methods()
    for dataset in settings.datasets:
        path, labels = FIGURES / "errors" / f"{dataset}.png", load_labels(dataset, "test")
        if labels.ndim > 1:
            pictures[path] = partial(sentence, f"{dataset}: not drawn, because images have several true classes")
            continue
        found, grid = class_maps(dataset, settings, labels.astype(np.int64)), load_grid(dataset)
        cells = {name: np.stack([cell_means(of, grid).flatten(1).numpy() for of in maps]) for name, maps in found.maps.items()}  # fmt: skip
        table = class_dependence(cells, found.wrong[found.numbers])
        titles = {name: title + DID_NOT_TRAIN * ((dataset, name) in untrained) for name, title in found.titles.items()}
        tables.append(table.assign(dataset=dataset, title=table["method"].map(titles)))
        heading = (
            f"{dataset}, run {settings.faithfulness.run}: {found.wrong.sum()} of {len(labels)} test images are wrong"
        )
        names = [name.replace("\n", " ") for name in captions(dataset)]
        wrong = np.flatnonzero(found.wrong[found.numbers])
        shown = wrong[np.unique(np.linspace(0, len(wrong), DRAWN, endpoint=False, dtype=int))] if len(wrong) else wrong
        texts = [f"predicted\n{names[first]}\ntrue\n{names[second]}" for first, second in found.classes[:, shown].T.tolist()]  # fmt: skip
        drawn = {titles[name]: maps[:, shown].numpy() for name, maps in found.maps.items()}
        pictures[path] = partial(both_classes, found.images[shown], drawn, texts, heading, grid)
        print(heading)
    save_tables("errors", {"": pd.concat(tables)[COLUMNS] if tables else pd.DataFrame(columns=COLUMNS)})
    save_pictures(pictures)
    remove_others(FIGURES / "errors", pictures)
