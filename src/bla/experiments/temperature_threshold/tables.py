"""The means of every setting, and its differences from the paper's setting."""

import numpy as np
import pandas as pd

from bla.base.specs import BoundedLogits
from bla.experiments.runs import PAIRED, corrected, means, paired
from bla.experiments.temperature_threshold.experiment import MEASURES, SETTING


def summary(runs: pd.DataFrame) -> pd.DataFrame:
    """A row per setting: means over runs with standard errors, and how many runs died at the bound or cut."""
    keys = ["dataset", *SETTING]
    table = means(runs, keys, MEASURES)
    for how in ("bound", "cut"):
        table[f"died_{how}"] = (
            (runs["died"] == how).groupby([runs[key] for key in keys], sort=False).sum().to_numpy(int)
        )
    return table


def differences(runs: pd.DataFrame, reference: BoundedLogits) -> pd.DataFrame:
    """Every setting against the reference, paired by run, with Holm's p; empty without runs of the reference.

    A family is the settings of one dataset and measure, since each measure is a question of its own. Eleven settings
    need nine runs to answer it.
    """
    rows = []
    reference_setting = [getattr(reference, name) for name in SETTING]
    for dataset, group in runs.groupby("dataset", sort=False):
        by_setting = {keys: part.sort_values("run") for keys, part in group.groupby(SETTING, sort=False)}
        if (base := by_setting.pop(tuple(reference_setting), None)) is None:
            continue
        for keys, part in by_setting.items():
            for name in ("accuracy", "loss", "explanation_size", "iou"):
                x, y = part[name].to_numpy(float), base[name].to_numpy(float)
                if np.isnan(x - y).any():
                    continue
                row: dict[str, object] = {"dataset": dataset} | dict(zip(SETTING, keys, strict=True))
                rows.append(row | {"measure": name} | paired(x, y))
    return corrected(pd.DataFrame(rows, columns=["dataset", *SETTING, "measure", *PAIRED]), ["dataset", "measure"])
