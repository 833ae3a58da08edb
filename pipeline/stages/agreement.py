"""Stage `agreement`: do the runs of a learned method keep the same cells? Tables and pictures in reports/."""

from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from bla.base.paper import COLUMNS
from bla.datasets import spread_over_classes
from bla.experiments.agreement.figures import cell_by_cell, chart
from bla.experiments.agreement.measures import overlaps
from bla.experiments.agreement.tables import agreement_table, row_of
from bla.method.equations import hard_explanation, logits_of, soft_weights
from bla.method.evaluation import scores_on_hard_explanation
from bla.runtime.seeds import derive_seed
from pipeline.artifacts.features import load_features, load_grid
from pipeline.artifacts.figures import FIGURES, Pictures, save_pictures
from pipeline.artifacts.images import chosen_images, load_labels
from pipeline.artifacts.models import load_variant
from pipeline.artifacts.tables import save_tables
from pipeline.run.environment import choose_device
from pipeline.run.settings import Settings, load_settings

Maps = NDArray[np.float64]
IMAGES = 500
"""Test images per dataset, at most."""
DRAWN = 3


class Explained(NamedTuple):
    """Soft weights and hard explanations `[R, N, n]` of all runs, and the class `[R, N]` that each predicts."""

    soft: Maps
    hard: NDArray[np.bool_]
    classes: NDArray[np.int64]


def main() -> None:
    """Write agreement.csv and the pictures agreement.png and agreement/DATASET.png."""
    settings, rows, pictures = load_settings(), list[dict[str, object]](), Pictures()
    for dataset in settings.datasets:
        labels = load_labels(dataset, "test")
        numbers = spread_over_classes(labels, min(IMAGES, len(labels)))
        shown, images, captions = chosen_images(dataset, DRAWN)
        soft, hard, titles = dict[str, Maps](), dict[str, Maps](), dict[str, str]()
        for name in tqdm(settings.variants, f"{dataset} agreement", disable=None):
            title = COLUMNS.get(name, name)
            explained, of_shown = (_variant(dataset, name, settings, chosen) for chosen in (numbers, np.array(shown)))
            if len(explained.hard) > 1:
                seed = derive_seed(settings.seed, dataset, "agreement", name)
                found = overlaps(explained.hard, explained.soft, explained.classes, seed)
                rows.append({"dataset": dataset, "method": name, "title": title} | row_of(found))
            for maps, values in ((soft, of_shown.soft), (hard, of_shown.hard.astype(np.float64))):
                maps[name] = values.reshape(*values.shape[:2], *load_grid(dataset))
            titles[name] = title
        pictures[FIGURES / "agreement" / f"{dataset}.png"] = partial(cell_by_cell, images, soft, hard, titles, captions)
    table = agreement_table(rows)
    save_tables("agreement", {"": table})
    save_pictures(pictures | {FIGURES / "agreement.png": partial(chart, table)})
    print(table[["dataset", "method", "n_runs", "agreement"]].to_string(index=False))


@torch.no_grad()
def _variant(dataset: str, name: str, settings: Settings, numbers: NDArray[np.int64]) -> Explained:
    device = choose_device()
    features = load_features(dataset, "test")[0][torch.from_numpy(numbers)].float().to(device)
    spec, head, module = load_variant(dataset, name, settings)
    head, module = head.to(device), module.moved(lambda t: t.to(device))
    logits = logits_of(spec, module(features))
    soft = soft_weights(logits.double(), spec.temperature)
    classes = scores_on_hard_explanation(features, spec, head, module).argmax(dim=2)
    return Explained(soft.cpu().numpy(), hard_explanation(spec, logits).cpu().numpy(), classes.cpu().numpy())
