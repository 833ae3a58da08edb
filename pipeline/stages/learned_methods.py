"""Stage `learned_methods`: variants and learned methods over their runs, by every metric, with their cost, in reports/."""

from collections.abc import Collection
from functools import partial

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bla.experiments.faithfulness.runs import over_runs
from bla.experiments.faithfulness.tables import answerable
from bla.experiments.runs import DID_NOT_TRAIN, mark_untrained, with_titles
from bla.plotting.maps import side_by_side
from pipeline.artifacts.features import load_grid
from pipeline.artifacts.figures import FIGURES, Pictures, remove_others, save_pictures
from pipeline.artifacts.images import chosen_images
from pipeline.artifacts.maps import FAITHFULNESS
from pipeline.artifacts.tables import load_table, save_tables, untrained_methods
from pipeline.maps.all_runs import explained_by
from pipeline.maps.faithfulness_metrics import metrics_of_other_runs
from pipeline.maps.learned_cost import cost_table
from pipeline.run.settings import Settings, load_settings

DRAWN = 5
"""Images in a picture."""


def main() -> None:
    """Write learned_methods.csv and tables of that name with _tests and _cost, and learned_methods/DATASET.png."""
    settings, pictures, per_run, untrained = load_settings(), Pictures(), [], untrained_methods()
    measured = [name for name in settings.datasets if name not in settings.faithfulness.left_out]
    methods = [*settings.variants, *settings.learned_explainers]
    cost = cost_table(measured, methods, settings)
    for dataset in measured:
        measured_run = load_table(FAITHFULNESS / dataset / "per_image.csv").query("method in @methods")
        measured_run = measured_run[~measured_run["metric"].isin({"forwards", "backwards"})]
        per_run += [metrics_of_other_runs(dataset, settings), measured_run.assign(run=settings.faithfulness.run)]
        pictures[FIGURES / "learned_methods" / f"{dataset}.png"] = partial(
            side_by_side, *_pictured(dataset, settings, untrained)
        )
    columns = ["dataset", "method", "metric", "image", "run", "value"]
    means, tests = over_runs(
        pd.concat([pd.DataFrame(columns=columns), *per_run])[columns].astype({"value": float}), untrained
    )
    tests = answerable(tests, settings.statistics.alpha)
    titles = dict(zip(cost["method"], cost["title"], strict=True))
    tables = {"": with_titles(means, titles), "_tests": with_titles(tests, titles), "_cost": cost}
    save_tables("learned_methods", {ending: mark_untrained(table, untrained) for ending, table in tables.items()})
    save_pictures(pictures)
    remove_others(FIGURES / "learned_methods", pictures)
    print(means.groupby(["dataset", "method"], sort=False)["n_runs"].max().reset_index().to_string(index=False))


def _pictured(
    dataset: str, settings: Settings, untrained: Collection[tuple[str, str]]
) -> tuple[NDArray[np.uint8], dict[str, NDArray[np.float64]], list[str], str, tuple[int, int]]:
    """What `side_by_side` draws: means over the runs of each method's maps, each divided by its largest weight."""
    shown, images, captions = chosen_images(dataset, DRAWN)
    maps, grid = {}, load_grid(dataset)
    for name, explain in explained_by(dataset, settings).items():
        found = explain(np.array(shown))
        largest = np.maximum(found.soft.max(axis=2, keepdims=True), np.finfo(float).tiny)
        failed = DID_NOT_TRAIN * ((dataset, name) in untrained)
        maps[f"{found.title} ({len(found.soft)} runs){failed}"] = (found.soft / largest).mean(axis=0).reshape(-1, *grid)
    return images, maps, captions, f"{dataset}: means over runs", grid
