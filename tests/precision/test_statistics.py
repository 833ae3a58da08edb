"""Wilcoxon, Mann-Whitney, bootstrap and Spearman against scipy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from bla.inference import paired
from bla.inference.paired import EXACT, wilcoxon
from bla.inference.unpaired import mann_whitney
from bla.metrics.rank_correlation import spearman

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("n", [5, 12, 20])
def test_wilcoxon_without_ties_agrees_with_scipys_exact_test(n):
    x, y = RNG.normal(0.3, 1, n), RNG.normal(0, 1, n)
    assert wilcoxon(x, y).p == pytest.approx(stats.wilcoxon(x, y, method="exact").pvalue, rel=1e-12)


def normal_p(difference: np.ndarray) -> float:
    """Two-sided p of the signed-rank statistic by normal approximation, with the variance corrected for ties."""
    difference = difference[difference != 0]
    ranks = stats.rankdata(np.abs(difference))
    return 2 * stats.norm.sf(abs(ranks[difference > 0].sum() - ranks.sum() / 2) / np.sqrt((ranks**2).sum() / 4))


@pytest.mark.parametrize("n", [2 * EXACT, 700])
@pytest.mark.parametrize("shift", [0.02, 0.15])
@pytest.mark.parametrize("ties", [False, True])
def test_wilcoxon_of_many_pairs_is_the_normal_approximation(n, shift, ties):
    rng = np.random.default_rng(7)
    x, y = rng.normal(shift, 1, n), rng.normal(0, 1, n)
    if ties:
        x, y = np.round(x), np.round(y)
    test = wilcoxon(x, y)
    assert test.p == pytest.approx(normal_p(x - y), rel=1e-9)
    assert test.p == pytest.approx(stats.wilcoxon(x, y, method="asymptotic").pvalue, rel=1e-9)
    assert test.nonzero_pairs == np.count_nonzero(x - y)
    ranks = stats.rankdata(np.abs(x - y)[x != y])
    assert test.effect_size == pytest.approx((ranks * np.sign(x - y)[x != y]).sum() / ranks.sum())
    if not ties:
        assert test.p == pytest.approx(stats.wilcoxon(x, y, method="exact").pvalue, rel=0.02)


def test_wilcoxon_is_exact_up_to_the_limit_even_with_equal_pairs():
    x = np.concatenate([np.random.default_rng(9).normal(0.1, 1, 200), np.zeros(50)])
    assert wilcoxon(x, np.zeros_like(x)).p == pytest.approx(stats.wilcoxon(x[:200], method="exact").pvalue, rel=1e-9)
    more = np.append(x, 0.125)
    assert wilcoxon(more, np.zeros_like(more)).p == pytest.approx(normal_p(more), rel=1e-9)
    assert wilcoxon(x, np.zeros_like(x)).p != pytest.approx(normal_p(x), rel=1e-6)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("shift", [0.0, 0.05, 0.1, 0.15])
def test_wilcoxon_is_continuous_at_the_limit(shift, ties, monkeypatch):
    x = np.random.default_rng(8).normal(shift, 1, EXACT)
    x = np.where(np.round(x, 1) == 0, 0.1, np.round(x, 1)) if ties else x
    exact = wilcoxon(x, np.zeros(EXACT)).p
    monkeypatch.setattr(paired, "EXACT", EXACT - 1)
    approximate = wilcoxon(x, np.zeros(EXACT)).p
    assert approximate != exact
    assert approximate == pytest.approx(exact, rel=0.01)


@pytest.mark.parametrize("seed", range(3))
def test_the_unpaired_test_agrees_with_scipy_and_its_interval_is_welchs(seed):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(0.4, 1, 20), rng.normal(0, 1, 15)
    found = mann_whitney(x, y)
    assert found.p == pytest.approx(stats.mannwhitneyu(x, y).pvalue)
    assert found.effect_size == pytest.approx(np.mean(np.sign(x[:, None] - y)))
    assert found.difference == pytest.approx(x.mean() - y.mean())
    assert found.interval == pytest.approx(tuple(stats.ttest_ind(x, y, equal_var=False).confidence_interval()))


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=3, max_size=20))
def test_spearman_with_ties_agrees_with_scipy(pairs):
    x, y = np.array(pairs, float).T
    found = spearman(x, y)
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert np.isnan(found)
    else:
        assert found == pytest.approx(stats.spearmanr(x, y).statistic)


def test_spearman_uses_the_last_axis_and_depends_only_on_order():
    x, y = RNG.normal(size=(2, 3, 16)), RNG.normal(size=(2, 3, 16))
    y[1, 2] = 0.25
    found = spearman(x, y)
    for run in range(2):
        for image in range(3):
            if (run, image) != (1, 2):
                assert found[run, image] == pytest.approx(stats.spearmanr(x[run, image], y[run, image]).statistic)
    assert np.isnan(found[1, 2])
    np.testing.assert_allclose(spearman(np.exp(x), 3 * y - 1), found)
    np.testing.assert_allclose(spearman(x, x**3), np.ones((2, 3)))
    np.testing.assert_allclose(spearman(x, -x), -np.ones((2, 3)))


@pytest.mark.parametrize("seed", range(5))
def test_rank_correlation_over_leading_axes_agrees_with_scipy_including_ties(seed):
    rng = np.random.default_rng(seed)
    x, y = rng.integers(0, 6, (4, 3, 20)).astype(float), rng.normal(size=(4, 3, 20))
    expected = [
        [stats.spearmanr(a, b).statistic for a, b in zip(*rows, strict=True)] for rows in zip(x, y, strict=True)
    ]
    np.testing.assert_allclose(spearman(x, y), expected)
