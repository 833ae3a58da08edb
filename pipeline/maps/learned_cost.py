"""What variants and learned methods cost: parameters that are trained, seconds of training, and passes for a map."""

from collections.abc import Sequence

import pandas as pd

from pipeline.artifacts.maps import MAPS, SECONDS
from pipeline.artifacts.models import load_state
from pipeline.artifacts.tables import load_table
from pipeline.maps.method_maps import Method
from pipeline.run.settings import Settings

COST = ["dataset", "method", "title", "trained_parameters", "training_seconds", "n_runs", "forwards", "backwards"]


def cost_table(datasets: Sequence[str], methods: Sequence[str], settings: Settings) -> pd.DataFrame:
    """A row per dataset and method, with the columns `COST`.

    `training_seconds` is the time of all `n_runs` together, divided by their number. Passes are those through the
    explained classifier.
    """
    tables = [load_table(MAPS / f"{name}.csv").assign(dataset=name) for name in datasets]
    table = pd.concat([pd.DataFrame(columns=COST), *tables])
    table = table[table["method"].isin(methods)]
    pairs = list(zip(table["dataset"], table["method"], strict=True))
    times = pd.concat([pd.DataFrame(columns=["seconds", "runs"]), *(load_table(SECONDS / dataset / f"{name}.csv") for dataset, name in pairs)])  # fmt: skip
    table["trained_parameters"] = [_trained_parameters(*pair, settings) for pair in pairs]
    table["training_seconds"], table["n_runs"] = (times["seconds"] / times["runs"]).to_numpy(), times["runs"].to_numpy()
    return table[COST]


def _trained_parameters(dataset: str, name: str, settings: Settings) -> int:
    """How many numbers are trained in each run; not those of a variant's frozen head."""
    method, state = Method(name, settings, None), load_state(dataset, name)
    frozen = getattr(method.variant, "head", "") == "frozen"
    trained = {key: values for key, values in state.items() if not (frozen and key.startswith("head."))}
    return int(method.explainer.trained_parameters(trained))
