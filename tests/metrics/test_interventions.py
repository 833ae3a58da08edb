"""Truth by intervention: effects, weights of parts, and their agreement, by hand and against scipy."""

import numpy as np
import pytest
from scipy import stats

from bla.metrics.interventions import agreement, effects_of, part_weights, weight_on_part


def test_an_effect_is_the_target_s_score_minus_the_score_without_the_part():
    whole = np.array([[3.0, 1.0], [0.0, 2.0]])
    without = np.array([[[1.0, 9.0], [9.0, 2.5]], [[3.0, 9.0], [9.0, -1.0]]])
    np.testing.assert_allclose(effects_of(whole, without, np.array([0, 1])), [[2, 0], [-0.5, 3]])


def test_weights_of_parts_by_hand():
    maps = np.array([[[1.0, 2.0], [3.0, 4.0]]])
    masks = np.zeros((1, 3, 4, 4), bool)
    masks[0, 0, :2, :2] = True  # the whole first cell
    masks[0, 1, 1:3, 3] = True  # a quarter of the second and of the fourth cell
    sums, means = part_weights(maps, masks)
    np.testing.assert_allclose(sums, [[1, 0.25 * 2 + 0.25 * 4, 0]])
    np.testing.assert_allclose(means, [[1, 3, np.nan]])


def test_a_map_at_pixel_resolution_gives_the_sums_of_its_pixels():
    rng = np.random.default_rng(0)
    maps, masks = rng.random((3, 8, 8)), rng.random((3, 5, 8, 8)) < 0.4
    sums, means = part_weights(maps, masks)
    np.testing.assert_allclose(sums, (maps[:, None] * masks).sum(axis=(2, 3)))
    np.testing.assert_allclose(means, [[m[p].mean() for p in parts] for m, parts in zip(maps, masks, strict=True)])


def test_large_parts_win_sums_of_a_constant_map_and_not_means():
    masks = np.zeros((1, 3, 8, 8), bool)
    for place, side in enumerate((2, 4, 6)):
        masks[0, place, :side, :side] = True
    sums, means = part_weights(np.ones((1, 4, 4)), masks)
    effects, visible = np.array([[1.0, 2.0, 3.0]]), np.ones((1, 3), bool)
    assert agreement(sums, effects, visible) == 1
    assert agreement(means, effects, visible) == 0
    assert np.isnan(agreement(means, effects, visible, "leave_out"))


def test_agreement_is_scipy_s_correlation_over_the_visible_parts():
    rng = np.random.default_rng(1)
    weights, effects = rng.random((20, 6)), rng.normal(size=(20, 6))
    visible = rng.random((20, 6)) < 0.8
    visible[0] = [1, 1, 0, 0, 0, 0]
    result = agreement(weights, effects, visible)
    assert np.isnan(result[0])
    for row in range(1, 20):
        seen = visible[row]
        assert result[row] == pytest.approx(stats.spearmanr(weights[row, seen], effects[row, seen]).statistic)


def test_a_map_that_was_not_made_has_no_agreement():
    weights = np.full((1, 4), np.nan)
    assert np.isnan(agreement(weights, np.arange(4.0)[None], np.ones((1, 4), bool)))


def test_the_share_of_positive_weight_on_a_part():
    maps = np.array([[[1.0, -5.0], [0.0, 3.0]], [[1.0, 1.0], [1.0, 1.0]], [[0.0, -1.0], [-1.0, 0.0]]])
    mask = np.zeros((3, 4, 4), bool)
    mask[:, 2:, 2:] = True  # the fourth cell
    mask[1] = False
    np.testing.assert_allclose(weight_on_part(maps, mask), [0.75, np.nan, np.nan])
