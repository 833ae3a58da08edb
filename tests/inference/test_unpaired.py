"""Unpaired groups of runs."""

import numpy as np
import pytest
from scipy import stats

from bla.inference.unpaired import mann_whitney, smallest_mann_whitney_p


def test_separated_groups_differ_and_equal_groups_do_not():
    assert mann_whitney(np.arange(10.0, 15), np.arange(5.0)).effect_size == 1
    assert mann_whitney(np.arange(5.0), np.arange(10.0, 15)).effect_size == -1
    alike = mann_whitney(np.full(4, 0.5), np.full(3, 0.5))
    assert alike == (1, 0, 0, (0, 0))


def test_constant_groups_have_an_interval_of_no_width_and_single_values_none():
    assert mann_whitney(np.full(4, 0.5), np.full(3, 0.25)).interval == (0.25, 0.25)
    assert np.isnan(mann_whitney(np.array([0.5]), np.array([0.2, 0.3])).interval).all()


@pytest.mark.parametrize(("first", "second"), [(3, 3), (5, 5), (8, 8), (3, 8)])
def test_the_interval_of_the_difference_of_few_runs_covers_it_in_95_per_cent(first, second):
    """Welch's interval is approximate: at least 93 % and at most 98 %, of three runs as well."""
    rng, count, covered = np.random.default_rng(first), 1000, 0
    for _ in range(count):
        low, high = mann_whitney(rng.normal(1, 1, first), rng.normal(0, 2, second)).interval
        covered += low <= 1 <= high
    assert 0.93 - 3 * (0.05 * 0.95 / count) ** 0.5 < covered / count < 0.98


@pytest.mark.parametrize(("first", "second"), [(2, 2), (3, 3), (4, 4), (10, 10), (3, 20)])
def test_the_smallest_p_is_that_of_separated_groups(first, second):
    exact = stats.mannwhitneyu(np.arange(first) - 100, np.arange(second), method="exact").pvalue
    assert smallest_mann_whitney_p(first, second) == pytest.approx(exact)
