"""Tables of the agreement over runs, and the test of claim 22."""

import numpy as np
import pandas as pd

from bla.experiments.agreement.measures import Overlaps, agreement, of_pairs
from bla.inference.paired import crossed, smallest_p, wilcoxon

AGREEMENT = ["n_runs", "n_images", "same", "chance", "other_image", "agreement", "low", "high"]
TEST = ["n_images_compared", "difference", "difference_low", "difference_high", "rank_biserial", "p", "p_smallest"]


def row_of(found: Overlaps) -> dict[str, object]:
    """Mean overlaps, agreement with its 95 % interval over runs and images, and the test of claim 22.

    The test compares two runs on one image with one run on two images of its class, over `n_images_compared` images
    that have such another image in every run. Intervals are NaN for two runs, whose one pair has no spread.
    """
    value, linear = agreement(found)
    (interval,) = crossed(linear[None])
    compared = np.isfinite(found.other_image).all(axis=0)
    row: dict[str, object] = {"n_runs": len(found.same), "n_images": found.same.shape[1]}
    row |= {"same": found.same.mean(), "chance": found.chance.mean(), "other_image": np.nan}
    row |= {"agreement": value, "low": interval.low, "high": interval.high, "n_images_compared": int(compared.sum())}
    if not compared.any():
        return row | dict.fromkeys(TEST[1:], np.nan)
    difference = (found.same - found.other_image)[:, compared]
    (over_both,) = crossed((of_pairs(found.same[:, compared]) - found.other_image[:, compared])[None])
    test = wilcoxon(difference.mean(axis=0).round(9), np.zeros(difference.shape[1]))
    row |= {"other_image": found.other_image[:, compared].mean(), "difference": difference.mean()}
    row |= {"difference_low": over_both.low, "difference_high": over_both.high}
    return row | {"rank_biserial": test.effect_size, "p": test.p, "p_smallest": smallest_p(difference.shape[1])}


def agreement_table(rows: list[dict[str, object]]) -> pd.DataFrame:
    """The rows of all datasets and methods."""
    return pd.DataFrame(rows, columns=["dataset", "method", "title", *AGREEMENT, *TEST])
