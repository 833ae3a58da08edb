"""The small CNN's runs: means, and unpaired tests."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from bla.experiments.runs import corrected, means
from bla.inference.unpaired import mann_whitney, smallest_mann_whitney_p

MEASURES = ["accuracy", "loss", "soft_accuracy", "soft_loss", "explanation_size"]
DEAD = ["share_at_bound", "share_without_weight"]
RUN = ["data", "pooling", "column", "run", "seed", "n_train_images", "n_images", "correct", *MEASURES, *DEAD]


def summary(runs: pd.DataFrame, paper: Mapping[str, float]) -> pd.DataFrame:
    """A row per column and pooling: means over runs, standard errors, and the paper's accuracies `paper` by column.

    `paper` is empty unless data and settings are the paper's.
    """
    table = means(runs, ["data", "pooling", "column"], [*MEASURES, *DEAD])
    return table.assign(paper_accuracy=[paper.get(str(column), np.nan) for column in table["column"]])


def differences(runs: pd.DataFrame) -> pd.DataFrame:
    """BLA-T against BL, for each pooling: Mann-Whitney's U over runs, with Holm's p.

    A family is the poolings of one measure, since each measure is a question of its own.
    """
    rows = []
    for (data, pooling), group in runs.groupby(["data", "pooling"], sort=False):
        for name in ("accuracy", "loss"):
            x, y = (group.loc[group["column"] == column, name].to_numpy(float) for column in ("bla_t", "bl"))
            test = mann_whitney(x, y)
            row = {"data": data, "pooling": pooling, "measure": name, "n_runs": len(x), "n_runs_bl": len(y)}
            row |= {"difference": test.difference, "low": test.interval.low, "high": test.interval.high}
            row |= {"rank_biserial": test.effect_size, "p": test.p}
            rows.append(row | {"p_smallest": smallest_mann_whitney_p(len(x), len(y))})
    return corrected(pd.DataFrame(rows), ["data", "measure"])


def published_accuracies(published: pd.DataFrame) -> dict[str, float]:
    """The paper's accuracies on MNIST's 3 and 8 by column."""
    accuracies = published.query("dataset == 'mnist_3_vs_8' and quantity == 'accuracy'").set_index("method")["value"]
    return {"bl": float(accuracies["BL"]), "bla_t": float(accuracies["BLA-T"])}
