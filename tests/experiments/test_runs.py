"""Tables of runs: each column by hand, means with standard errors, pairs of runs."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from bla.experiments.runs import (
    PAIRED,
    Column,
    corrected,
    did_not_train,
    mark_untrained,
    means,
    one_table,
    paired,
    table_of_runs,
    with_titles,
)
from bla.method.modules import Evaluation, Explanations

CORRECT = torch.tensor([[True, False, True], [True] * 3])
LOSS = torch.tensor([[0.0, 3, 3], [1, 1, 1]])
PLAIN = {
    "n_images": [3, 3],
    "correct": [2, 3],
    "accuracy": [2 / 3, 1],
    "loss": [2, 1],
}
"""The columns that do not describe explanations."""


def explanations():
    """Two runs, three images, four cells. Run 0 keeps one, no and all cells; run 1 one per image, far below the bound."""
    logits = torch.tensor([[[-1.0, 0, -2, -3], [-5, -6, -7, -8], [0, 0, 0, 0]], [[-900.0, -901, -905, -902]] * 3])
    hard = torch.tensor([[[0, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]], [[1, 0, 0, 0]] * 3]).bool()
    soft = torch.tensor([[[0.2, 0.8, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]], [[0, 0, 0, 0.1]] * 3])
    return Explanations(logits, soft, hard, ~CORRECT, LOSS + 1)


def test_one_row_per_run_by_hand():
    table = table_of_runs(Evaluation(CORRECT, LOSS, explanations()))
    wanted = PLAIN | {
        "run": [0, 1],
        "soft_accuracy": [1 / 3, 0],
        "soft_loss": [3, 2],
        "explanation_size": [5 / 3, 1],  # 1, 0 and 4 cells
        "explanation_size_q05": [0.1, 1],  # a tenth of the way from 0 to 1
        "explanation_size_q25": [0.5, 1],
        "explanation_size_q50": [1, 1],
        "explanation_size_q75": [2.5, 1],  # half of the way from 1 to 4
        "explanation_size_q95": [3.7, 1],
        "effective_cells": [0.2**-0.2 * 0.8**-0.8, 1],  # of the first image, which alone has weight; of one cell
        "share_one_cell": [1 / 3, 1],
        "share_empty": [1 / 3, 0],
        "share_at_bound": [1 / 3, 0],  # the third image
        "share_never_at_bound": [1 / 3, 1],  # the second image
        "share_without_weight": [2 / 3, 0],
        "smallest_logit": [-8, -905],
        "median_largest_logit": [0, -900],  # of 0, -5 and 0
        "largest_logit": [0, -900],
    }
    assert set(table) == set(wanted)
    for column, values in wanted.items():
        assert table[column].tolist() == pytest.approx(values), column


def test_without_explanations_the_columns_are_empty():
    table, with_them = (table_of_runs(Evaluation(CORRECT, LOSS, part)) for part in (None, explanations()))
    assert list(table) == list(with_them)
    for column, values in PLAIN.items():
        assert table[column].tolist() == pytest.approx(values), column
    assert table.drop(columns=["run", *PLAIN]).isna().all(axis=None)


def test_losses_in_half_precision_are_averaged_in_double():
    loss = torch.full((1, 70_000), 1.5).half()
    assert table_of_runs(Evaluation(torch.ones(1, 70_000).bool(), loss))["loss"].tolist() == [1.5]


def test_a_table_has_its_columns_even_if_nothing_ran():
    tables = [pd.DataFrame({"b": [1], "a": [2], "c": [3]}), pd.DataFrame({"a": [4], "b": [5]})]
    found = one_table((table for table in tables), ["a", "b"])
    assert found.to_numpy().tolist() == [[2, 1], [4, 5]]
    assert list(found) == list(one_table([], ["a", "b"])) == ["a", "b"]
    assert one_table([], ["a", "b"]).empty


def test_means_have_their_standard_errors_and_the_order_of_the_runs():
    runs = pd.DataFrame({"d": ["z", "a", "z", "a"], "v": "x", "n_images": [7, 9, 7, 9], "loss": [1.0, 5, 2, 5]})
    table = means(runs, ["d", "v"], ["loss"])
    assert list(table) == ["d", "v", "n_runs", "n_images", "loss", "loss_standard_error"]
    assert table.to_numpy().tolist() == [["z", "x", 2, 7, 1.5, 0.5], ["a", "x", 2, 9, 5, 0]]


def test_means_of_no_runs_are_an_empty_table_with_the_same_columns():
    table = means(pd.DataFrame(columns=["d", "n_images", "loss"]), ["d"], ["loss"])
    assert list(table) == ["d", "n_runs", "n_images", "loss", "loss_standard_error"]
    assert table.empty


def test_run_r_is_compared_with_run_r():
    x, y = np.random.default_rng(0).normal(size=(2, 8))
    row = paired(x, y)
    interval, ranks = stats.ttest_1samp(x - y, 0).confidence_interval(), stats.rankdata(np.abs(x - y))
    assert list(row) == PAIRED
    assert row["n_runs"] == 8
    assert row["difference"] == pytest.approx(x.mean() - y.mean())
    assert (row["low"], row["high"]) == pytest.approx((interval.low, interval.high))
    assert row["p_smallest"] == 2 / 2**8
    assert row["p"] == pytest.approx(stats.wilcoxon(x, y).pvalue)
    assert row["rank_biserial"] == pytest.approx((ranks * np.sign(x - y)).sum() / ranks.sum())


def test_differences_equal_up_to_rounding_are_ties():
    x, y = np.array([0.2, 0.2, 0.1 + 0.2]), np.array([0.1, 0.3, 0.3])
    row = paired(x, y)  # +0.1 and -0.1 are tied, and the third pair does not differ
    assert (row["rank_biserial"], row["p"]) == (0, 1)


@pytest.mark.parametrize(
    ("runs", "tests", "answers"), [(3, 1, False), (5, 1, False), (6, 1, True), (8, 9, False), (9, 9, True)]
)
def test_the_smallest_corrected_p_is_that_of_a_family_in_which_everything_differs_in_every_run(runs, tests, answers):
    values = np.random.default_rng(0).random((tests, runs)) + 0.1
    found = corrected(pd.DataFrame([paired(x, 0 * x) for x in values]).assign(family="f"), ["family"])
    assert found["p_holm"].tolist() == found["p_holm_smallest"].tolist() == [min(1, tests * 2 / 2**runs)] * tests
    assert (found["p_holm_smallest"] < 0.05).all() == answers
    opposed = corrected(pd.DataFrame([paired(x - x.mean(), 0 * x) for x in values]).assign(family="f"), ["family"])
    assert opposed["p_holm_smallest"].tolist() == found["p_holm_smallest"].tolist()


def test_tests_of_many_runs_leave_more_to_those_of_few_runs():
    """Holm's step down: the small p values of 20 runs do not count for the one of six runs."""
    tests = pd.DataFrame([paired(np.arange(1.0, n), np.zeros(n - 1)) for n in (21, 21, 7, 3)]).assign(family="f")
    tests.loc[3, "p"] = np.nan  # no test, and not in the family
    found = corrected(tests, ["family"])
    assert found["p_holm_smallest"].tolist()[:3] == pytest.approx([3 * 2 / 2**20, 3 * 2 / 2**20, 2 / 2**6])
    assert np.isnan(found["p_holm_smallest"][3])
    assert np.isnan(found["p_holm"][3])


def test_counts_of_correct_images_tie_exactly_although_float_accuracies_do_not():
    rows, other = (np.arange(10)[None] < np.array(counts)[:, None] for counts in ([2, 3, 7], [1, 2, 6]))
    a, b = Column(rows, np.zeros((3, 10))), Column(other, np.zeros((3, 10)))
    assert len(set(a.paired("accuracy") - b.paired("accuracy"))) == 1
    assert len(set(a.measure("accuracy") - b.measure("accuracy"))) > 1


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_a_method_did_not_train_if_its_objective_is_lower_by_rounding_alone(size):
    """Rounding is a millionth, 2^-20, of the value, whatever its size."""
    objective = size * np.array([1 - 2.0**-19, 1 - 2.0**-21, 1, 1 + 2.0**-19])
    methods = pd.DataFrame({"objective": objective, "objective_of_constant": size})
    assert did_not_train(methods).tolist() == [False, True, True, True]


def test_titles_say_on_which_dataset_a_method_did_not_train():
    table = pd.DataFrame({"dataset": ["a", "a", "b"], "method": ["m", "n", "m"], "title": ["M", "N", "M"], "value": 1})
    marked = mark_untrained(table, {("b", "m"), ("b", "n")})
    assert marked["title"].tolist() == ["M", "N", "M, did not train"]
    assert list(marked) == list(table)
    empty = with_titles(pd.DataFrame(columns=["dataset", "method", "value"]), {})
    assert mark_untrained(empty, set()).empty
