"""Stage `multi_label_faithfulness`: masks of classifiers with several classes an image, measured, in reports/."""

from functools import partial

import pandas as pd

from bla.experiments.related_methods.multi_label.figures import mask_pictures, specificity_matrices
from bla.experiments.related_methods.multi_label.tables import (
    CLASSES,
    MEANS,
    OBJECTIVES,
    SPECIFICITY,
    TESTS,
    definitions,
)
from pipeline.artifacts.figures import FIGURES, Pictures, remove_others, save_pictures
from pipeline.artifacts.tables import save_tables
from pipeline.maps.multi_label_masks import measured
from pipeline.run.settings import load_settings


def main() -> None:
    """Write multi_label.csv, _tests.csv, _specificity.csv, _classes.csv, _objectives.csv, _metrics.csv, and pictures of each dataset."""
    settings, pictures = load_settings(), Pictures()
    tables: dict[str, list[pd.DataFrame]] = {
        name: [] for name in ("", "_tests", "_specificity", "_classes", "_objectives")
    }
    for dataset in settings.multi_label.datasets:
        found = measured(dataset, settings)
        for name, table in found.tables.items():
            tables[name].append(table.assign(dataset=dataset))
        folder, heading = FIGURES / "multi_label", f"{dataset}, run 0"
        pictures[folder / f"{dataset}.png"] = partial(mask_pictures, found.images, found.masks, found.captions, f"{heading}: masks of the classes that are present")  # fmt: skip
        pictures[folder / f"{dataset}_specificity.png"] = partial(specificity_matrices, found.matrices, found.names, f"{dataset}: softmax of a class (%) on images that show it, under the mask of each class")  # fmt: skip
        values = found.tables[""].pivot_table("mean", "metric", "title", sort=False)
        print(f"{dataset}\n{values.to_string(float_format='{:.3f}'.format)}")
    columns = {"": MEANS, "_tests": TESTS, "_specificity": SPECIFICITY, "_classes": CLASSES, "_objectives": OBJECTIVES}
    joined = {name: pd.concat([pd.DataFrame(columns=columns[name]), *parts])[columns[name]] if parts else pd.DataFrame(columns=columns[name]) for name, parts in tables.items()}  # fmt: skip
    save_tables("multi_label", joined | {"_metrics": definitions()})
    (FIGURES / "multi_label").mkdir(parents=True, exist_ok=True)
    save_pictures(pictures)
    remove_others(FIGURES / "multi_label", pictures)
