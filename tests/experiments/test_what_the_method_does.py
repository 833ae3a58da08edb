"""Questions about the method: directions, answers, too few runs, and random cells against a complete enumeration."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from bla.experiments.runs import Column
from bla.experiments.what_the_method_does.tables import Question, answers, overlaps_of, questions

RNG = np.random.default_rng(0)


def column(accuracy: float, loss: float, size: int | None = None, runs: int = 12) -> Column:
    """A column of noisy results on 60 images."""
    shape = (runs, 60)
    sizes = None if size is None else RNG.integers(size - 1, size + 2, shape).astype(np.int16)
    return Column(RNG.random(shape) < accuracy, RNG.normal(loss, 0.1, shape), sizes)


def test_every_question_is_answered_in_the_direction_that_it_asks():
    columns = {
        "bl": column(0.5, 1),
        "l2x_f": column(0.3, 2, 8),
        "bla": column(0.9, 0.5, 7),
        "bla_t": column(0.6, 0.9, 5),
    }
    better, worse = RNG.normal(0.5, 0.05, (12, 60)), RNG.normal(0.2, 0.05, (12, 60))
    found = answers(questions(columns, 49, (better, worse)), 0.05).set_index("question")["answer"]
    assert found["Does BLA keep fewer than half of the 49 cells?"] == "yes"
    assert found["Does BLA overlap the object more (IoU) than as many random cells?"] == "yes"
    assert found["Is BLA more accurate than L2X-F?"] == found["Has BLA a lower loss than L2X-F?"] == "yes"
    assert (
        found["Is BLA more accurate with the threshold?"] == found["Has BLA a lower loss with the threshold?"] == "no"
    )
    assert found["Is BLA-T more accurate if its weights are renormalised?"] == "not run"  # no such column
    assert answers(questions(columns, 9, (worse, better)), 0.05)["answer"][:2].tolist() == ["no", "no"]


def test_a_row_has_the_test_over_runs_and_the_corrected_p():
    pairs = [(RNG.normal(d, 1, (9, 40)), RNG.normal(0, 1, (9, 40))) for d in (0.4, 0.2, 0)]
    table = answers([Question(f"is {n} larger?", 1, *pair) for n, pair in enumerate(pairs)], 0.05)
    expected = [stats.wilcoxon((x - y).mean(axis=1), method="exact").pvalue for x, y in pairs]
    np.testing.assert_allclose(table["p"], expected)
    np.testing.assert_allclose(table["p_holm"].iloc[np.argmin(expected)], 3 * min(expected))
    np.testing.assert_allclose(table["p_holm_smallest"], 3 * 2 / 2**9)  # all nine runs agree, three questions
    np.testing.assert_allclose(table["difference"], [(x - y).mean() for x, y in pairs])
    assert (table["low"] < table["difference"]).all()
    assert (table["difference"] < table["high"]).all()
    assert set(table["n_runs"]) == {9}
    assert set(table["n_images"]) == {40}


@pytest.mark.parametrize("runs", [2, 3, 5])
def test_too_few_runs_give_no_answer(runs):
    x = np.ones((runs, 30)) + RNG.normal(0, 0.01, (runs, 30))
    (row,) = answers([Question("is it larger?", 1, x, np.zeros_like(x))], 0.05).itertuples()
    assert row.answer == "inconclusive"
    assert row.p_holm_smallest == pytest.approx(2 ** (1 - runs))


def test_a_difference_of_runs_that_few_images_decide_is_inconclusive():
    x = np.zeros((12, 30))
    x[:, 0] = 3 + RNG.normal(0, 0.01, 12)  # one image makes every run better
    assert answers([Question("is it larger?", 1, x, np.zeros_like(x))], 0.05)["answer"].tolist() == ["inconclusive"]


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("most", [-0.1, -0.08, -0.05])
def test_a_few_runs_far_off_do_not_outvote_most_runs(sign, most):
    """The mean and its interval are on one side, the signed ranks significantly on the other."""
    difference = sign * np.array([most] * 50 + [1.0] * 12)
    x = np.tile(difference[:, None], (1, 30))
    (row,) = answers([Question("is it larger?", 1, x, np.zeros_like(x))], 0.05).itertuples()
    assert row.p == pytest.approx(stats.wilcoxon(difference).pvalue, rel=0.1)
    assert row.p < 0.05
    assert row.low * row.high > 0
    assert row.difference * row.rank_biserial < 0
    assert row.answer == "inconclusive"


def test_without_masks_or_columns_nothing_is_run():
    table = answers(questions({"bl": column(0.5, 1)}, 49, None), 0.05)
    assert set(table["answer"]) == {"not run"}
    assert table["p"].isna().all()


def test_random_cells_have_the_mean_overlap_of_all_sets_of_that_size():
    coverage = RNG.random((3, 6)) * (RNG.random((3, 6)) < 0.5)
    hard = np.zeros((2, 3, 6), bool)
    hard[0, :, :2], hard[1, :, 1:5] = True, True
    iou, random = overlaps_of(hard, coverage, seed=0)
    for run, size in ((0, 2), (1, 4)):
        for image in range(3):
            covered = coverage[image]

            def overlap(cells, covered=covered):
                both = covered[list(cells)].sum()
                return both / (len(cells) + covered.sum() - both)

            assert iou[run, image] == pytest.approx(overlap(np.nonzero(hard[run, image])[0]))
            every = [overlap(cells) for cells in combinations(range(6), size)]
            assert random[run, image] == pytest.approx(np.mean(every), abs=4 * np.std(every) / 200**0.5 + 1e-9)


def test_the_table_has_the_same_columns_whatever_ran():
    ran = answers([Question("x?", 1, np.ones((3, 4)), np.zeros((3, 4)))], 0.05)
    assert list(ran.columns) == list(answers([Question("x?", 1)], 0.05).columns)
    assert isinstance(ran, pd.DataFrame)
