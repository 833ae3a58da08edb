"""Stage `agreement`: do the runs of a learned method keep the same cells? Tables and pictures in reports/."""

from functools import partial

import numpy as np
from tqdm import tqdm

from bla.datasets import spread_over_classes
from bla.experiments.agreement.figures import cell_by_cell, chart
from bla.experiments.agreement.measures import overlaps
from bla.experiments.agreement.tables import agreement_table, row_of
from bla.experiments.runs import DID_NOT_TRAIN
from bla.runtime.seeds import derive_seed
from pipeline.artifacts.features import load_grid
from pipeline.artifacts.figures import FIGURES, Pictures, remove_others, save_pictures
from pipeline.artifacts.images import chosen_images, load_labels
from pipeline.artifacts.tables import save_tables, untrained_methods
from pipeline.maps.all_runs import Maps, explained_by
from pipeline.run.settings import load_settings

IMAGES = 500
"""Test images per dataset, at most."""
DRAWN = 3
"""Images in each picture."""


def main() -> None:
    """Write agreement.csv and the pictures agreement.png and agreement/DATASET.png."""
    settings, rows, pictures, untrained = load_settings(), list[dict[str, object]](), Pictures(), untrained_methods()
    for dataset in settings.datasets:
        shown, images, captions = chosen_images(dataset, DRAWN)
        maps, kept, titles = dict[str, Maps](), dict[str, Maps](), dict[str, str]()
        for name, explain in (bar := tqdm(explained_by(dataset, settings, remember=True).items(), disable=None)):
            bar.set_description(f"{dataset} agreement, {name}")
            labels = load_labels(dataset, "test")
            explained = explain(spread_over_classes(labels, min(IMAGES, len(labels))))
            titles[name] = explained.title + DID_NOT_TRAIN * ((dataset, name) in untrained)
            if len(explained.hard) > 1:
                seed = derive_seed(settings.seed, dataset, "agreement", name)
                found = overlaps(explained.hard, explained.soft, explained.classes, seed)
                rows.append({"dataset": dataset, "method": name, "title": titles[name]} | row_of(found))
            of_shown = explain(np.array(shown))
            for of_method, values in ((maps, of_shown.soft), (kept, of_shown.hard.astype(np.float64))):
                of_method[name] = values.reshape(*values.shape[:2], *load_grid(dataset))
        pictures[FIGURES / "agreement" / f"{dataset}.png"] = partial(cell_by_cell, images, maps, kept, titles, captions)
    table = agreement_table(rows)
    save_tables("agreement", {"": table})
    save_pictures(pictures | {FIGURES / "agreement.png": partial(chart, table)})
    remove_others(FIGURES / "agreement", pictures)
    print(table[["dataset", "method", "n_runs", "agreement"]].to_string(index=False))
