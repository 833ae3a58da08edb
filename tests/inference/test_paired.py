"""Tests and intervals against scipy, brute force and hand-computed values."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from bla.inference.paired import (
    bootstrap_spread_ratio,
    crossed,
    holm,
    pitman_morgan,
    smallest_p,
    standard_error,
    student,
    wilcoxon,
)

RNG = np.random.default_rng(0)


@given(st.lists(st.integers(-4, 4), min_size=1, max_size=9))
def test_wilcoxon_with_ties_and_zeros_counts_every_sign_pattern(differences):
    x = np.array(differences, float)
    left = x[x != 0]
    ranks = stats.rankdata(np.abs(left))
    sums = [ranks @ signs for signs in itertools.product([0, 1], repeat=len(left))]
    observed = ranks @ (left > 0)
    low, high = np.mean(np.array(sums) <= observed + 1e-9), np.mean(np.array(sums) >= observed - 1e-9)
    test = wilcoxon(x, np.zeros(len(x)))
    assert test.p == pytest.approx(min(1, 2 * min(low, high)))
    assert test.nonzero_pairs == len(left)


def test_wilcoxon_by_hand():
    assert wilcoxon(np.array([1.0, 2, 3]), np.array([1.0, 2, 3])) == (1.0, 0, 0.0)
    assert wilcoxon(np.arange(1.0, 21), np.zeros(20)) == (pytest.approx(2 * 2.0**-20), 20, 1.0)
    # ranks 1, 2, 3 with signs +, +, -: W+ = 3, W- = 3
    assert wilcoxon(np.array([1.0, 2, -3]), np.zeros(3)) == (1.0, 3, 0.0)
    # ties of 1, 1 share rank 1.5; W+ = 1.5 + 3, W- = 1.5: (4.5 - 1.5) / 6
    assert wilcoxon(np.array([1.0, -1, 2]), np.zeros(3)).effect_size == 0.5


@given(st.lists(st.integers(-50, 50), min_size=2, max_size=25))
def test_wilcoxon_is_symmetric(differences):
    x, zero = np.array(differences, float), np.zeros(len(differences))
    there, back = wilcoxon(x, zero), wilcoxon(zero, x)
    assert there.p == pytest.approx(back.p)
    assert there.effect_size == pytest.approx(-back.effect_size)
    assert 0 < there.p <= 1


def test_holm_by_hand():
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03])), [0.03, 0.06, 0.06])
    assert len(holm(np.array([]))) == 0


def test_standard_error_by_hand():
    assert standard_error(np.array([1.0, 2, 3, 4])) == pytest.approx(np.sqrt(5 / 3) / 2)


@pytest.mark.parametrize("runs", [3, 5, 8])
@pytest.mark.parametrize("draw", ["normal", "uniform", "laplace"])
def test_the_interval_of_the_mean_of_few_runs_covers_it_in_95_per_cent(runs, draw):
    """Of normal values; of others nearly. A percentile bootstrap of 3, 5 and 8 runs covers it in 75, 85 and 89 %."""
    count = 4000
    values = getattr(np.random.default_rng(runs), draw)(size=(count, runs)) - (0.5 if draw == "uniform" else 0)
    covered = sum(low <= 0 <= high for low, high in map(student, values))
    low, high = stats.binom.interval(0.999, count, 0.95) if draw == "normal" else (0.9 * count, 0.98 * count)
    assert low <= covered <= high


def test_students_interval_by_scipy_and_none_of_one_run():
    values = np.array([0.3, 0.1, 0.4, 0.1, 0.5])
    assert student(values) == pytest.approx(tuple(stats.ttest_1samp(values, 0).confidence_interval()))
    assert student(np.full(4, 0.25)) == (0.25, 0.25)
    assert np.isnan(student(np.array([0.3]))).all()
    assert np.isnan(crossed(RNG.normal(size=(2, 1, 30)))).all()


def mixed(rng, runs, images, run, image, noise):
    return rng.normal(0, run, (runs, 1)) + rng.normal(0, image, (1, images)) + rng.normal(0, noise, (runs, images))


@pytest.mark.parametrize("runs", [3, 5, 8])
@pytest.mark.parametrize("spread", [(1.0, 0.0, 0.1), (0.3, 1.0, 0.5), (0.0, 1.0, 0.1)], ids=["runs", "both", "images"])
def test_the_interval_over_runs_and_images_covers_the_mean_in_at_least_95_per_cent(runs, spread):
    count, rng = 2000, np.random.default_rng(runs)
    intervals = crossed(np.stack([mixed(rng, runs, 16, *spread) for _ in range(count)]))
    covered = sum(low <= 0 <= high for low, high in intervals)
    assert stats.binom.ppf(0.001, count, 0.95) <= covered <= 0.985 * count


def test_the_interval_over_runs_and_images_agrees_with_a_bootstrap_of_both_if_there_are_many():
    values = mixed(RNG, 40, 60, 0.3, 1, 0.5) + 0.3
    rng = np.random.default_rng(3)
    means = [values[np.ix_(rng.integers(0, 40, 40), rng.integers(0, 60, 60))].mean() for _ in range(5000)]
    (found,) = crossed(values[None])
    np.testing.assert_allclose(found, np.quantile(means, [0.025, 0.975]), atol=0.03)


def test_the_interval_over_runs_and_images_is_wider_than_over_runs_if_images_vary():
    values = np.tile(RNG.normal(0, 1, (1, 50)), (20, 1))
    over_runs = student(values.mean(axis=1))
    (over_both,) = crossed(values[None])
    assert over_runs.high - over_runs.low < 1e-9
    assert over_both == pytest.approx(tuple(stats.ttest_1samp(values[0], 0).confidence_interval()))


def test_the_interval_of_a_quantity_does_not_depend_on_other_quantities():
    values = RNG.normal(0, 1, (3, 5, 30))
    assert crossed(values)[1] == pytest.approx(crossed(values[1:2])[0])


@pytest.mark.parametrize("runs", [1, 2, 5, 6, 20])
def test_the_smallest_p_is_that_of_runs_that_all_differ_in_one_direction(runs):
    assert smallest_p(runs) == wilcoxon(np.arange(1.0, runs + 1), np.zeros(runs)).p
    assert smallest_p(runs) == pytest.approx(stats.binomtest(runs, runs).pvalue)


def test_spread_ratio_and_pitman_morgan_see_a_tenfold_spread():
    narrow, wide = RNG.normal(0, 1, 40), RNG.normal(0, 10, 40)
    ratio = bootstrap_spread_ratio(wide, narrow, 999, 0)
    assert 4 < ratio.low < ratio.high < 30
    test = pitman_morgan(wide, narrow)
    assert test.p < 1e-6
    assert test.correlation > 0
    assert pitman_morgan(narrow, wide) == (pytest.approx(test.p), pytest.approx(-test.correlation))


def test_pitman_morgan_is_the_t_test_of_the_variance_ratio_of_pairs():
    x, y = RNG.multivariate_normal([0, 0], [[1, 0.5], [0.5, 2]], 15).T
    ratio, r = x.var(ddof=1) / y.var(ddof=1), np.corrcoef(x, y)[0, 1]
    t = (ratio - 1) * np.sqrt(13) / np.sqrt(4 * ratio * (1 - r**2))  # Morgan 1939, by the variances
    assert pitman_morgan(x, y).p == pytest.approx(2 * stats.t.sf(abs(t), 13))


def test_pitman_morgan_rejects_a_true_null_of_correlated_pairs_in_5_per_cent():
    rng, pairs = np.random.default_rng(4), 2000
    rejected = 0
    for _ in range(pairs):
        x, y = rng.multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], 20).T
        rejected += pitman_morgan(x, y).p < 0.05
    assert abs(rejected / pairs - 0.05) < 4 * np.sqrt(0.05 * 0.95 / pairs)


@pytest.mark.parametrize(
    ("x", "y"), [([1.0] * 5, [1.0] * 5), ([1.0, 2, 3], [2.0, 3, 4]), ([1.0, 2, 3], [-1.0, -2, -3])]
)
def test_pitman_morgan_of_equal_spreads_finds_nothing(x, y):
    assert pitman_morgan(np.array(x), np.array(y)) == (1, 0)
