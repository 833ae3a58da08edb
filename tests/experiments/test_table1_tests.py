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


def own_columns(runs, seed=0):
    """The columns of an own classifier: BL has one run, and there is no BL+."""
    parts = columns(runs, seed, ("l2x_f", "bla"))
    return columns(1, seed + 1, ("bl",)) | parts


@pytest.mark.parametrize("runs", [2, 7, 20])
def test_the_runs_are_one_sample_against_the_one_value_of_an_own_classifier(runs):
    parts = own_columns(runs)
    table = column_tests("d", "image_folder", [], parts)
    assert set(table["against"]) == {"bl", "l2x_f"}
    against = table.query("against == 'bl' and measure == 'loss'")
    assert len(against) == 2
    for row in against.itertuples():
        values, constant = parts[row.variant].loss.mean(axis=1), parts["bl"].loss.mean()
        assert row.p == pytest.approx(stats.wilcoxon(values - constant, method="exact").pvalue)
        expected = stats.ttest_1samp(values, constant).confidence_interval()
        assert (row.runs_low, row.runs_high) == pytest.approx((expected.low - constant, expected.high - constant))
        assert "BL's one value" in row.test
        assert row.n_runs == runs


def test_mcnemar_compares_run_0_with_an_own_classifier():
    parts = own_columns(3)
    correct = np.zeros((3, 40), bool)
    correct[0, :9] = True
    correct[1:, :] = True  # other runs do not matter
    bl = np.zeros((1, 40), bool)
    bl[0, 8:11] = True  # 8 images right by BLA alone, 2 by BL alone, 1 by both
    parts |= {"bla": Column(correct, parts["bla"].loss), "bl": Column(bl, parts["bl"].loss)}
    (row,) = (row for row in column_tests("d", "image_folder", [], parts).itertuples() if row.variant == "bla" and "McNemar" in row.test)  # fmt: skip
    assert row.p == pytest.approx(2 * (1 + 10 + 45) / 2**10)
    assert (row.nonzero_pairs, row.n_images, row.rank_biserial) == (10, 40, 0.6)
    assert row.mean_difference == pytest.approx(6 / 40)


def test_tests_over_images_do_not_change_the_correction_of_those_over_runs():
    table = with_holm(column_tests("d", "image_folder", [], own_columns(7)))
    over_runs = table[table["family"] == "other images, Table 1"]
    assert len(over_runs) == 2 * 3
    np.testing.assert_allclose(over_runs["p_holm_smallest"], 6 * 2 / 2**7)
    assert (table["test"].str.contains("McNemar") == (table["family"] == "other images, run 0 over images")).all()
