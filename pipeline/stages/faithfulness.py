"""Stage `faithfulness@DATASET`: every metric of every method's maps, image by image, in data/faithfulness/DATASET/."""

import numpy as np
import pandas as pd

from bla.base.specs import PaintedBirds
from pipeline.artifacts.explained_images import load_explained
from pipeline.artifacts.images import object_masks
from pipeline.artifacts.maps import FAITHFULNESS, MAPS, load_maps, own_maps
from pipeline.artifacts.tables import save_table
from pipeline.maps.faithfulness_metrics import POINTS, all_metrics
from pipeline.maps.interventions import PART_EFFECTS, Interventions
from pipeline.run.settings import load_settings

COLUMNS = ["method", "metric", "image", "explained_class", "value"]
MEANS = ["mean", "standard_error", "n"]
NO_ROWS = pd.DataFrame(columns=["method", "metric", "image", "value"])
NO_CURVES = pd.DataFrame(columns=[*POINTS, *MEANS])
NO_CASCADE = pd.DataFrame(columns=["method", "level", "layer", *MEANS, "draws", "deviation_draws"])


def main(dataset: str) -> None:
    """Write per_image.csv, curves.csv, randomisation.csv (means over images) and parts.csv (effects of painted parts).

    A dataset in `faithfulness.left_out` has the metrics of interventions alone.
    """
    settings = load_settings()
    spec, explained = settings.faithfulness, load_explained(dataset, settings)
    numbers, painted = explained.numbers, isinstance(settings.dataset[dataset].images, PaintedBirds)
    arrays = load_maps(MAPS / f"{dataset}.safetensors", "maps", dataset, numbers)
    targets, masks = arrays["targets"], object_masks(dataset, "test", numbers, arrays["targets"])
    rows, curves, cascade = NO_ROWS, NO_CURVES, NO_CASCADE
    if dataset not in spec.left_out:
        rows, curves, cascade = all_metrics(dataset, settings, explained, arrays, masks)
    parts = pd.DataFrame(columns=PART_EFFECTS)
    if painted:
        found = Interventions(dataset, settings, explained, targets)
        assert masks is not None
        maps = own_maps(arrays) | {"mask": masks.astype(np.float64)}
        rows = pd.concat([rows, found.metrics(maps, spec.constant_maps)])
        parts = found.table()
    images = rows["image"].to_numpy(np.int64)
    rows = rows.assign(dataset=dataset, image=numbers[images], explained_class=targets[images])
    save_table(FAITHFULNESS / dataset / "per_image.csv", rows[["dataset", *COLUMNS]])
    for name, table in (("curves", curves), ("randomisation", cascade), ("parts", parts)):
        save_table(FAITHFULNESS / dataset / f"{name}.csv", table.assign(dataset=dataset)[["dataset", *table]])
    methods = rows["method"].nunique()
    print(f"{dataset}: {rows['metric'].nunique()} metrics of {methods} methods on {len(numbers)} images")
