"""The cluster bootstrap: intervals of shares, drawn from whole persons."""

import numpy as np
import pytest

from bla.inference.clustered import FEWEST, cluster_bootstrap


def test_with_equal_persons_the_interval_is_a_point():
    ((low, high),) = cluster_bootstrap(np.full((10, 1), 3.0), np.full(10, 4.0), 200, 0)
    assert low == high == 0.75


def test_too_few_persons_have_no_interval():
    assert np.isnan(cluster_bootstrap(np.ones((FEWEST - 1, 2)), np.ones(FEWEST - 1), 200, 0)).all()


def test_the_standard_error_is_that_between_persons():
    """Half of 400 persons always agree, half never: the share's standard error is 0.5 / sqrt(400), whatever the answers."""
    sums = np.repeat([0.0, 8.0], 200)[:, None]
    ((low, high),) = cluster_bootstrap(sums, np.full(400, 8.0), 4000, 1)
    assert [low, high] == pytest.approx([0.5 - 1.96 * 0.025, 0.5 + 1.96 * 0.025], abs=0.003)


def test_persons_count_by_their_answers():
    """A person with 12 answers weighs three times as much as one with 4."""
    sums, counts = np.array([[12.0]] * 50 + [[0.0]] * 50), np.array([12.0] * 50 + [4.0] * 50)
    ((low, high),) = cluster_bootstrap(sums, counts, 4000, 2)
    assert low < 600 / 800 < high
    assert (low + high) / 2 == pytest.approx(0.75, abs=0.02)


def test_the_interval_holds_the_true_share_in_95_percent_of_studies_and_that_of_independent_answers_does_not():
    """40 persons with 8 answers each, whose own shares vary (beta distribution with mean 0.6)."""
    rng, inside, naive = np.random.default_rng(0), 0, 0
    for study in range(300):
        sums = rng.binomial(8, rng.beta(1.5, 1.0, 40)).astype(float)
        ((low, high),) = cluster_bootstrap(sums[:, None], np.full(40, 8.0), 400, study)
        share = sums.sum() / 320
        inside += low <= 0.6 <= high
        naive += abs(share - 0.6) <= 1.96 * np.sqrt(share * (1 - share) / 320)
    assert inside / 300 == pytest.approx(0.94, abs=0.03)
    assert naive / 300 < 0.8
