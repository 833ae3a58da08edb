"""The tests behind Table 1's marks: every column against BL, its left neighbour and BL+, run by run."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from bla.base.paper import COLUMNS, DATASETS, PUBLISHED_AS
from bla.experiments.runs import Column, Measure, corrected
from bla.inference.paired import crossed, smallest_p, student, wilcoxon

MEASURES: tuple[Measure, Measure] = ("accuracy", "loss")
PAPER_COLUMNS = {key for key, name in COLUMNS.items() if name == PUBLISHED_AS[key]} - {"bl_plus"}


def column_tests(
    dataset: str,
    kind: str,
    departures: Sequence[str],
    columns: Mapping[str, Column],
) -> pd.DataFrame:
    """The paired comparisons on one dataset, without correction: a row per pair of columns and measure.

    `columns` are in the order of Table 1: bl, the variants, bl_plus. Holm corrects the tests of a `family` together.
    Its name has the data (the paper's datasets with the paper's settings, that is without `departures`; embedded; other
    images) and the comparison (between the paper's columns; with BL+; with further columns).
    """
    variants = [key for key in columns if key not in ("bl", "bl_plus")]
    paper = kind in DATASETS and not departures
    group = "the paper's data" if paper else "painted" if kind == "painted_birds" else "other images"
    left = dict(zip(variants[1:], variants, strict=False))
    pairs = [(v, "bl") for v in variants] + list(left.items())
    pairs += [("bl", "bl_plus")] + [(v, "bl_plus") for v in variants]
    rows = []
    for measure in MEASURES:
        differences = [columns[x].per_image(measure) - columns[y].per_image(measure) for x, y in pairs]
        over_runs_and_images = crossed(np.stack(differences))
        for (variant, against), difference, over_both in zip(pairs, differences, over_runs_and_images, strict=True):
            test = wilcoxon(columns[variant].paired(measure), columns[against].paired(measure))
            over_runs = student(difference.mean(axis=1))
            not_the_papers = "BL+" if against == "bl_plus" else "further columns"
            rows.append(
                {
                    "family": f"{group}, {'Table 1' if {variant, against} <= PAPER_COLUMNS else not_the_papers}",
                    "dataset": dataset,
                    "measure": measure,
                    "variant": variant,
                    "against": against,
                    "to_the_left": against == left.get(variant),
                    "test": "Wilcoxon signed-rank, exact, two-sided",
                    "n_runs": len(difference),
                    "nonzero_pairs": test.nonzero_pairs,
                    "n_images": difference.shape[1],
                    "mean_difference": difference.mean(),
                    "runs_low": over_runs.low,
                    "runs_high": over_runs.high,
                    "runs_images_low": over_both.low,
                    "runs_images_high": over_both.high,
                    "rank_biserial": test.effect_size,
                    "p": test.p,
                    "p_smallest": smallest_p(len(difference)),
                }
            )
    return pd.DataFrame(rows)


def with_holm(tests: pd.DataFrame) -> pd.DataFrame:
    """The tests of all datasets with `p_holm` and `p_holm_smallest`, corrected within each family."""
    return corrected(tests.reset_index(drop=True), ["family"])
