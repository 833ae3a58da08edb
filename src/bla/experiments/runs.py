"""What all tables over runs have in common: means with standard errors, and one group of runs against its pair."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bla.inference.paired import bootstrap, standard_error, wilcoxon

Array = NDArray[np.float64]


def means(runs: pd.DataFrame, keys: Sequence[str], measures: Sequence[str]) -> pd.DataFrame:
    """A row a combination of keys, in the order of the runs: n_runs, n_images, each measure's mean and standard error."""
    rows = []
    for of, own in runs.groupby(list(keys), sort=False):
        row: dict[str, object] = dict(zip(keys, of, strict=True))
        row |= {"n_runs": len(own), "n_images": own["n_images"].iloc[0]}
        for name in measures:
            values = own[name].to_numpy(float)
            row |= {name: values.mean(), f"{name}_standard_error": float(standard_error(values))}
        rows.append(row)
    spread = [column for name in measures for column in (name, f"{name}_standard_error")]
    return pd.DataFrame(rows, columns=[*keys, "n_runs", "n_images", *spread])


PAIRED = ["n_runs", "difference", "low", "high", "rank_biserial", "p"]
"""The columns of `paired`."""


def paired(x: Array, y: Array, resamples: int, seed: int) -> dict[str, object]:
    """Run r of x against run r of y: x - y with its 95 % bootstrap interval, Wilcoxon's p and the rank-biserial correlation.

    n runs allow no exact p below 2 / 2^n.
    """
    test = wilcoxon((x - y).round(9), np.zeros(len(x)))  # so that equal differences tie
    interval = bootstrap(x - y, resamples, seed)
    found = (len(x), float((x - y).mean()), interval.low, interval.high, test.effect_size, test.p)
    return dict(zip(PAIRED, found, strict=True))
