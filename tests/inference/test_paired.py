"""Tests and intervals against scipy, brute force and hand-computed values."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from bla.inference.paired import (
    bootstrap,
    bootstrap_spread_ratio,
    crossed_bootstrap,
    holm,
    pitman_morgan,
    standard_error,
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


def test_crossed_bootstrap_resamples_rows_and_columns():
    values = RNG.normal(0, 1, (6, 1)) * 0.2 + RNG.normal(0.3, 1, (1, 40)) + RNG.normal(0, 0.5, (6, 40))
    rng = np.random.default_rng(3)
    means = [values[np.ix_(rng.integers(0, 6, 6), rng.integers(0, 40, 40))].mean() for _ in range(20_000)]
    (found,) = crossed_bootstrap(values[None], 20_000, 4)
    np.testing.assert_allclose(found, np.quantile(means, [0.025, 0.975]), atol=0.02)


def test_crossed_bootstrap_is_wider_than_over_runs_if_images_vary():
    values = np.tile(RNG.normal(0, 1, (1, 50)), (20, 1))
    over_runs = bootstrap(values.mean(axis=1), 999, 0)
    (over_both,) = crossed_bootstrap(values[None], 999, 0)
    assert over_runs.high - over_runs.low < 1e-9
    assert over_both.high - over_both.low > 0.3


def test_crossed_bootstrap_of_a_quantity_does_not_depend_on_other_quantities():
    values = RNG.normal(0, 1, (3, 5, 30))
    alone = crossed_bootstrap(values[1:2], 700, 9)[0]
    np.testing.assert_allclose(crossed_bootstrap(values, 700, 9)[1], alone)


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
