"""The tests behind Table 1's marks: every column against BL, its left neighbour and BL+, run by run.

A BL of one run is a classifier of one's own. The runs of a column are then one sample, tested against BL's one value, and
McNemar's test compares run 0 with BL image by image. There is no BL+.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from bla.base.paper import COLUMNS, DATASETS, PUBLISHED_AS
from bla.experiments.runs import Column, Measure, corrected
from bla.inference.paired import crossed, mcnemar, smallest_p, student, wilcoxon

MEASURES: tuple[Measure, Measure] = ("accuracy", "loss")
PAIRED = "Wilcoxon signed-rank, exact, two-sided"
ONE_SAMPLE = "Wilcoxon signed-rank of the runs against BL's one value, exact, two-sided"
MCNEMAR = "McNemar over images, run 0, exact, two-sided"
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
    pairs += [(v, "bl_plus") for v in ("bl", *variants) if "bl_plus" in columns]
    one_value = len(columns["bl"].correct) == 1
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
                    "test": ONE_SAMPLE if one_value and against == "bl" else PAIRED,
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
    if one_value:
        rows += [_over_images(dataset, group, key, columns) for key in variants]
    return pd.DataFrame(rows)


def _over_images(dataset: str, group: str, variant: str, columns: Mapping[str, Column]) -> dict[str, object]:
    """McNemar's test of run 0 of a variant against the one run of BL."""
    x, y = columns[variant].correct[0], columns["bl"].correct[0]
    test, difference = mcnemar(x, y), x.astype(float) - y
    row: dict[str, object] = {"family": f"{group}, run 0 over images", "dataset": dataset, "measure": "accuracy"}
    row |= {
        "variant": variant,
        "against": "bl",
        "to_the_left": False,
        "test": MCNEMAR,
        "n_runs": 1,
        "nonzero_pairs": test.nonzero_pairs,
    }
    row |= {"n_images": len(x), "mean_difference": difference.mean(), "rank_biserial": test.effect_size, "p": test.p}
    return row | {"p_smallest": smallest_p(len(x))}


def with_holm(tests: pd.DataFrame) -> pd.DataFrame:
    """The tests of all datasets with `p_holm` and `p_holm_smallest`, corrected within each family."""
    return corrected(tests.reset_index(drop=True), ["family"])
