"""Stage `learned_methods`: variants and learned methods over their runs, by every metric, with their cost, in reports/."""

from functools import partial

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bla.experiments.faithfulness.runs import over_runs
from bla.experiments.runs import with_titles
from bla.plotting.maps import side_by_side
from pipeline.artifacts.features import load_grid
from pipeline.artifacts.figures import FIGURES, Pictures, remove_others, save_pictures
from pipeline.artifacts.images import chosen_images
from pipeline.artifacts.maps import FAITHFULNESS, MAPS
from pipeline.artifacts.models import load_state
from pipeline.artifacts.tables import TABLES, load_table, save_tables
from pipeline.maps.all_runs import explained_by
from pipeline.maps.faithfulness_metrics import metrics_of_other_runs
from pipeline.maps.method_maps import Method
from pipeline.run.settings import Settings, load_settings

DRAWN = 5
"""Images in a picture."""
COST = ["dataset", "method", "title", "trained_parameters", "forwards", "backwards"]


def main() -> None:
    """Write learned_methods.csv and tables of that name with _tests and _cost, and learned_methods/DATASET.png."""
    settings, pictures, per_run = load_settings(), Pictures(), []
    measured = [name for name in settings.datasets if name not in settings.faithfulness.left_out]
    methods = [*settings.variants, *settings.learned_explainers]
    cost = pd.concat([pd.DataFrame(columns=COST), *(load_table(MAPS / f"{name}.csv").assign(dataset=name) for name in measured)])  # fmt: skip
    cost = cost[cost["method"].isin(methods)]
    pairs = zip(cost["dataset"], cost["method"], strict=True)
    cost["trained_parameters"] = [_trained_parameters(*pair, settings) for pair in pairs]
    for dataset in measured:
        measured_run = load_table(FAITHFULNESS / dataset / "per_image.csv").query("method in @methods")
        measured_run = measured_run[~measured_run["metric"].isin({"forwards", "backwards"})]
        per_run += [metrics_of_other_runs(dataset, settings), measured_run.assign(run=settings.faithfulness.run)]
        pictures[FIGURES / "learned_methods" / f"{dataset}.png"] = partial(side_by_side, *_pictured(dataset, settings))
    objectives = load_table(TABLES / "faithfulness_objectives.csv")
    untrained = set(objectives.loc[~objectives["trained"], ["dataset", "method"]].itertuples(index=False, name=None))
    columns = ["dataset", "method", "metric", "image", "run", "value"]
    means, tests = over_runs(
        pd.concat([pd.DataFrame(columns=columns), *per_run])[columns].astype({"value": float}), untrained
    )
    titles = dict(zip(cost["method"], cost["title"], strict=True))
    save_tables("learned_methods", {"": with_titles(means, titles), "_tests": with_titles(tests, titles), "_cost": cost[COST]})  # fmt: skip
    save_pictures(pictures)
    remove_others(FIGURES / "learned_methods", pictures)
    print(means.groupby(["dataset", "method"], sort=False)["n_runs"].max().reset_index().to_string(index=False))


def _trained_parameters(dataset: str, name: str, settings: Settings) -> int:
    """How many numbers are trained for a variant or learned method, in each run; not those of a frozen head."""
    method, state = Method(name, settings, None), load_state(dataset, name)
    frozen = getattr(method.variant, "head", "") == "frozen"
    trained = {key: values for key, values in state.items() if not (frozen and key.startswith("head."))}
    return int(method.explainer.trained_parameters(trained))


def _pictured(
    dataset: str, settings: Settings
) -> tuple[NDArray[np.uint8], dict[str, NDArray[np.float64]], list[str], str, tuple[int, int]]:
    """What `side_by_side` draws: means over the runs of each method's maps, each divided by its largest weight."""
    shown, images, captions = chosen_images(dataset, DRAWN)
    maps, grid = {}, load_grid(dataset)
    for explain in explained_by(dataset, settings).values():
        found = explain(np.array(shown))
        largest = np.maximum(found.soft.max(axis=2, keepdims=True), np.finfo(float).tiny)
        maps[f"{found.title} ({len(found.soft)} runs)"] = (found.soft / largest).mean(axis=0).reshape(-1, *grid)
    return images, maps, captions, f"{dataset}: means over runs", grid
