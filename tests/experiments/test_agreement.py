"""Agreement over runs: 0 for what needs no image, 1 for the same cells, and overlaps by a plain loop."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from bla.claims.rules import agrees_over_runs
from bla.experiments.agreement.figures import chart
from bla.experiments.agreement.measures import Overlaps, agreement, of_pairs, overlaps
from bla.experiments.agreement.tables import TEST, agreement_table, row_of

RUNS, IMAGES, CELLS = 4, 40, 49


def soft_of(hard):
    return np.random.default_rng(9).random(hard.shape) / 2 + hard


def agreement_of(hard, soft=None, classes=None):
    classes = np.zeros(hard.shape[:2], np.int64) if classes is None else classes
    return agreement(overlaps(hard, soft_of(hard) if soft is None else soft, classes, seed=0))[0]


def per_image(rng, sizes):
    """For each image a random set of that many cells, the same for all runs."""
    sets = np.zeros((IMAGES, CELLS), bool)
    for row, size in zip(sets, sizes, strict=True):
        row[rng.permutation(CELLS)[:size]] = True
    return np.tile(sets, (RUNS, 1, 1))


def always(cells):
    hard = np.zeros((RUNS, IMAGES, CELLS), bool)
    hard[..., cells] = True
    return hard


@pytest.mark.parametrize(
    "hard",
    [always(range(CELLS)), always([]), always([23, 24, 25]), always([0])],
    ids=["all", "none", "centre", "corner"],
)
def test_runs_that_keep_the_same_cells_in_every_image_do_not_agree_beyond_chance(hard):
    assert agreement_of(hard) == pytest.approx(0, abs=1e-12)


def test_the_centre_in_sizes_that_depend_on_the_image_is_no_agreement_either():
    """As many central cells as the image has size: the size is known, so nothing about the image is left."""
    places = np.argsort(np.argsort(np.abs(np.arange(CELLS) - 24.1)))
    sizes = np.random.default_rng(3).integers(1, 20, IMAGES)
    hard = np.tile(places < sizes[:, None], (RUNS, 1, 1))
    assert agreement_of(hard, soft=np.tile(-places.astype(float), (RUNS, IMAGES, 1))) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_random_cells_agree_by_chance_alone(share):
    hard = np.random.default_rng(0).random((RUNS, 300, CELLS)) < share
    assert agreement_of(hard) == pytest.approx(0, abs=0.01)


@given(st.integers(0, 2**31), st.integers(1, 24))
@settings(max_examples=20, deadline=None)
def test_runs_that_keep_the_same_cells_of_different_images_agree_fully(seed, largest):
    rng = np.random.default_rng(seed)
    assert agreement_of(per_image(rng, rng.integers(1, largest + 1, IMAGES))) == pytest.approx(1)


def test_half_of_the_runs_alike():
    """Two pairs of runs that agree fully, and not with the other pair: a third of all pairs of runs."""
    rng = np.random.default_rng(4)
    first, second = per_image(rng, [6] * IMAGES)[0], per_image(rng, [6] * IMAGES)[0]
    found = overlaps(np.stack([first, first, second, second]), soft_of(np.zeros((4, IMAGES, CELLS))), np.zeros((4, IMAGES), np.int64), 0)  # fmt: skip
    between = ((first & second).sum(axis=1) / (first | second).sum(axis=1)).mean()
    assert found.same.mean() == pytest.approx((1 + 2 * between) / 3)


def test_overlaps_of_the_same_run_are_those_of_a_plain_loop():
    rng = np.random.default_rng(5)
    hard, classes = rng.random((2, 9, 6)) < 0.4, rng.integers(0, 3, (2, 9))
    found = overlaps(hard, rng.random(hard.shape), classes, 0)
    for run in range(2):
        for image in range(9):
            others = [j for j in range(9) if j != image and classes[run, j] == classes[run, image]]
            sets = [set(np.flatnonzero(hard[run, j])) for j in (image, *others)]
            expected = [len(sets[0] & s) / max(1, len(sets[0] | s)) for s in sets[1:]]
            assert found.other_image[run, image] == pytest.approx(
                np.mean(expected) if expected else np.nan, nan_ok=True
            )
        both = [len(a & b) / max(1, len(a | b)) for a, b in ([set(np.flatnonzero(hard[r, i])) for r in (0, 1)] for i in range(9))]  # fmt: skip
        np.testing.assert_allclose(found.same[run], both)


def test_the_row_has_the_test_over_images_and_an_interval_around_the_agreement():
    rng = np.random.default_rng(6)
    hard = per_image(rng, rng.integers(2, 12, IMAGES)) ^ (rng.random((RUNS, IMAGES, CELLS)) < 0.05)
    classes = np.tile(np.arange(IMAGES) % 5, (RUNS, 1))
    classes[:, 7] = 9  # the only image of its class
    found = overlaps(hard, soft_of(hard), classes, 0)
    row = row_of(found)
    assert row["low"] < row["agreement"] < row["high"]
    assert (row["n_runs"], row["n_images"], row["n_images_compared"]) == (RUNS, IMAGES, IMAGES - 1)
    difference = np.delete((found.same - found.other_image).mean(axis=0), 7)
    assert row["p"] == pytest.approx(stats.wilcoxon(difference, method="exact").pvalue)
    assert row["difference"] == pytest.approx(difference.mean())


def test_the_interval_of_the_agreement_covers_it():
    """Of 200 simulated studies with noisy runs, about 95 % contain the agreement of a large one."""
    rng = np.random.default_rng(7)

    def study(images):
        truth = rng.random((images, 16)) < 0.3
        hard = truth[None] ^ (rng.random((5, images, 16)) < 0.15)
        return row_of(overlaps(hard, rng.random(hard.shape), np.zeros((5, images), np.int64), 0))

    expected = study(4000)["agreement"]
    inside = [study(25) for _ in range(200)]
    share = np.mean([row["low"] <= expected <= row["high"] for row in inside])
    assert 0.9 < share <= 1


def test_pseudo_values_of_pairs_are_those_of_a_jackknife_that_leaves_a_run_out():
    rng = np.random.default_rng(9)
    hard = rng.random((5, 9, CELLS)) < 0.3
    classes = np.zeros((5, 9), np.int64)

    def same(runs):
        return overlaps(hard[runs], soft_of(hard[runs]), classes[runs], 0).same

    whole = same([0, 1, 2, 3, 4])
    expected = [5 * whole.mean() - 4 * same([r for r in range(5) if r != left]).mean() for left in range(5)]
    np.testing.assert_allclose(of_pairs(whole).mean(axis=1), expected)
    np.testing.assert_allclose(of_pairs(whole).mean(axis=0), whole.mean(axis=0))


@pytest.mark.parametrize("runs", [3, 5])
def test_intervals_cover_where_runs_are_of_unequal_quality(runs):
    """Of 100 studies whose runs have different noise; without the jackknife 53 to 79 % of the intervals contain the mean."""
    rng = np.random.default_rng(2)

    def study():
        truth = rng.random((30, 16)) < 0.3
        noise = rng.uniform(0, 0.35, runs)
        hard = truth[None] ^ (rng.random((runs, 30, 16)) < noise[:, None, None])
        classes = np.tile(np.arange(30) % 3, (runs, 1))
        return row_of(overlaps(hard, rng.random(hard.shape), classes, 0))

    rows = pd.DataFrame([study() for _ in range(100)])
    for value, low, high in (("agreement", "low", "high"), ("difference", "difference_low", "difference_high")):
        assert ((rows[low] <= rows[value].mean()) & (rows[value].mean() <= rows[high])).mean() > 0.87


def test_two_runs_are_one_pair_without_an_interval_and_claim_22_has_no_answer():
    rng = np.random.default_rng(10)
    hard = per_image(rng, rng.integers(2, 12, IMAGES))[:2]
    row = row_of(overlaps(hard, soft_of(hard), np.zeros((2, IMAGES), np.int64), 0))
    assert row["agreement"] == pytest.approx(1)
    assert np.isnan([row[name] for name in ("low", "high", "difference_low", "difference_high")]).all()
    found = agrees_over_runs(pd.Series(row), 0.05)
    assert found.holds_here == "inconclusive"
    assert "no interval from one pair of runs" in found.ours


def test_without_images_of_the_same_class_there_is_no_test():
    hard = np.random.default_rng(8).random((RUNS, 3, CELLS)) < 0.3
    row = row_of(overlaps(hard, soft_of(hard), np.tile(np.arange(3), (RUNS, 1)), 0))
    assert row["n_images_compared"] == 0
    assert all(np.isnan(row[name]) for name in TEST[1:])
    assert list(agreement_table([row])[TEST[0]]) == [0]


@pytest.mark.parametrize("runs", [2, 4])
def test_one_image_has_no_chance_and_no_agreement(runs):
    hard = per_image(np.random.default_rng(11), [6] * IMAGES)[:runs, :1]
    found = overlaps(hard, soft_of(hard), np.zeros((runs, 1), np.int64), 0)
    assert (found.same == 1).all()
    assert np.isnan(found.chance).all()
    row = row_of(found)
    assert row["same"] == 1
    assert np.isnan([row[name] for name in ("chance", "agreement", "low", "high", "difference")]).all()
    table = agreement_table([{"dataset": "birds", "method": "bla", "title": "BLA"} | row])
    assert chart(table).axes[0].get_xlim()[1] == 1
    assert agrees_over_runs(pd.Series(row), 0.05).holds_here == "inconclusive"


def test_an_agreement_of_nothing_is_zero():
    ones = np.ones((3, 5))
    assert agreement(Overlaps(ones, ones, ones))[0] == 0
