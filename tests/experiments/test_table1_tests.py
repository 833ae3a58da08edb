"""The tests behind Table 1's marks: intervals by scipy and by simulation, families, smallest p."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from bla.experiments.runs import Column
from bla.experiments.table1.tests import column_tests, with_holm


def columns(runs, seed=0, keys=("bl", "l2x_f", "bla", "bl_plus")):
    rng = np.random.default_rng(seed)
    return {key: Column(rng.random((runs, 40)) < 0.8, rng.random((runs, 40))) for key in keys}


@pytest.mark.parametrize("runs", [2, 3, 20])
def test_intervals_over_runs_are_students(runs):
    parts = columns(runs)
    table = column_tests("d", "image_folder", [], parts)
    for row in table.itertuples():
        difference = (parts[row.variant].per_image(row.measure) - parts[row.against].per_image(row.measure)).mean(
            axis=1
        )
        expected = stats.ttest_1samp(difference, 0).confidence_interval()
        assert (row.runs_low, row.runs_high) == pytest.approx((expected.low, expected.high))
        assert row.runs_images_low < row.mean_difference < row.runs_images_high


@pytest.mark.parametrize(("runs", "answers"), [(5, False), (8, False), (9, True)])
def test_a_family_of_few_runs_says_that_it_cannot_answer(runs, answers):
    table = with_holm(pd.concat([column_tests(name, "image_folder", [], columns(runs, 1)) for name in "ab"]))
    family = table[table["family"] == "other images, Table 1"]
    assert len(family) == 2 * 2 * 3  # datasets, measures, pairs
    np.testing.assert_allclose(family["p_holm_smallest"], min(1, 12 * 2 / 2**runs))
    assert (family["p_holm_smallest"] < 0.05).all() == answers
    assert (table["p_holm_smallest"] <= table["p_holm"]).all()
