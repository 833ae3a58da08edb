"""Stage `explanation_size`: the number of cells of explanations, by image, class and confidence."""

import pandas as pd
from tqdm import tqdm

from bla.base.specs import BoundedLogits
from bla.datasets import class_of_each
from bla.experiments.explanation_size.experiment import confidences
from bla.experiments.explanation_size.figures import sizes
from bla.experiments.explanation_size.tables import RELATIONS, per_bin, per_class, per_run, relations, with_holm
from bla.method.scores import scores_of
from bla.runtime.seeds import derive_seed
from pipeline.artifacts.evaluation import load_column
from pipeline.artifacts.features import explained_features, load_features
from pipeline.artifacts.figures import FIGURES, save_picture
from pipeline.artifacts.images import class_names
from pipeline.artifacts.models import load_variant
from pipeline.artifacts.tables import save_tables
from pipeline.run.environment import choose_device
from pipeline.run.settings import load_settings

FRONT = ["dataset", "variant"]


def main() -> None:
    """Write explanation_size_runs.csv, _classes.csv, _bins.csv, explanation_size.csv (permutation tests) and a figure.

    For the variants with bounded logits; L2X-F always keeps k cells.
    """
    settings, device = load_settings(), choose_device()
    resamples = settings.statistics.resamples
    bounded = [key for key in settings.variants if isinstance(settings.variant[key], BoundedLogits)]
    pairs = [(dataset, key) for dataset in settings.datasets for key in bounded]
    parts: dict[str, list[pd.DataFrame]] = {"_runs": [], "_classes": [], "_bins": [], "": []}
    for dataset, key in tqdm(pairs, "explanation_size", unit="column", disable=None):
        features, labels = explained_features(dataset).to(device), load_features(dataset, "test")[1]
        spec, head, module = load_variant(dataset, key, settings)
        confidence = confidences(features, spec, head.to(device), module.to(device), scores_of(labels))
        column = load_column(dataset, key)
        size, correct, classes = column.size, column.correct, class_of_each(labels.cpu().numpy())
        assert size is not None
        made = (
            per_run(size, confidence, correct, classes),
            per_class(size, classes, class_names(dataset)),
            per_bin(size, confidence, correct, features.shape[1]),
            relations(size, confidence, correct, classes, resamples, derive_seed(settings.seed, "sizes", dataset, key)),
        )
        for rows, table in zip(parts.values(), made, strict=True):
            rows.append(table.assign(dataset=dataset, variant=key))
    tables = {
        name: pd.concat(rows) if rows else pd.DataFrame(columns=[*FRONT, *RELATIONS]) for name, rows in parts.items()
    }
    tables = {name: table[[*FRONT, *(c for c in table if c not in FRONT)]] for name, table in tables.items()}
    related = tables[""] = with_holm(tables[""])
    save_tables("explanation_size", tables)
    save_picture(FIGURES / "explanation_size.png", sizes(tables["_bins"], tables["_classes"]))
    print(related[[*FRONT, "quantity", "mean", "p_holm"]].to_string(index=False))
