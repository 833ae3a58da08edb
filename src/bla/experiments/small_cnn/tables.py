"""The small CNN's runs: means, and unpaired tests."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from bla.experiments.runs import means
from bla.inference.paired import holm
from bla.inference.unpaired import mann_whitney

MEASURES = ["accuracy", "loss", "soft_accuracy", "soft_loss", "explanation_size"]
DEAD = ["share_at_bound", "share_without_weight"]
RUN = ["data", "pooling", "column", "run", "seed", "n_train_images", "n_images", "correct", *MEASURES, *DEAD]


def summary(runs: pd.DataFrame, paper: Mapping[str, float]) -> pd.DataFrame:
    """A row per column and pooling: means over runs, standard errors, and the paper's accuracies `paper` by column."""
    table = means(runs, ["data", "pooling", "column"], [*MEASURES, *DEAD])
    return table.assign(paper_accuracy=[paper.get(str(column), np.nan) for column in table["column"]])


def differences(runs: pd.DataFrame, resamples: int, seed: int) -> pd.DataFrame:
    """BLA-T against BL, for each pooling: Mann-Whitney's U over runs, with Holm's p over the table."""
    rows = []
    for (data, pooling), group in runs.groupby(["data", "pooling"], sort=False):
        for name in ("accuracy", "loss"):
            x, y = (group.loc[group["column"] == column, name].to_numpy(float) for column in ("bla_t", "bl"))
            test = mann_whitney(x, y, resamples, seed)
            row = {"data": data, "pooling": pooling, "measure": name, "n_runs": len(x), "n_runs_bl": len(y)}
            row |= {"difference": test.difference, "low": test.interval.low, "high": test.interval.high}
            rows.append(row | {"rank_biserial": test.effect_size, "p": test.p})
    table = pd.DataFrame(rows)
    table["p_holm"] = holm(table["p"].to_numpy(float))
    return table


def published_accuracies(published: pd.DataFrame) -> dict[str, float]:
    """The paper's accuracies on MNIST's 3 and 8 by column."""
    accuracies = published.query("dataset == 'mnist_3_vs_8' and quantity == 'accuracy'").set_index("method")["value"]
    return {"bl": float(accuracies["BL"]), "bla_t": float(accuracies["BLA-T"])}
