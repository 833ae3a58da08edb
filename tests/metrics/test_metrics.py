"""Metrics of maps against hand-computed values, loops over pixels, scipy, and their defining properties."""

import math
import re
from collections import Counter
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats
from torch.nn.functional import interpolate

from bla.base.errors import BlaError
from bla.base.rounding import joined, larger
from bla.metrics import BY_NAME, METRICS
from bla.metrics.confidence import average_drop, explanation_mask, increase, keep_largest
from bla.metrics.curves import (
    area_under_curve,
    curve_steps,
    insertion_patterns,
    mask_scores,
    pooled_maps,
    rank_cells,
)
from bla.metrics.localisation import coverage, overlap, pointing_game, weight_inside
from bla.metrics.rank_correlation import scored, spearman

RNG = np.random.default_rng(0)
SOME_TIES = np.array([0.5, 2, 0.5, -1, 2, 0.5, 7])


def test_metrics_have_unique_names_in_the_order_of_the_tables():
    names = [metric.name for metric in METRICS]
    assert len(set(names)) == len(names)
    assert list(BY_NAME) == names
    assert all(BY_NAME[metric.name] is metric for metric in METRICS)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_a_metric_describes_itself(metric):
    assert metric.better in ("higher", "lower")
    for text in (metric.title, metric.unit, metric.formula, metric.source):
        assert text.strip() == text != ""
    assert re.fullmatch(r"[^\n]*[.?!]", metric.meaning)


@pytest.mark.parametrize("metric", METRICS, ids=lambda m: m.name)
def test_a_metric_is_explained_in_two_sentences(metric):
    assert len(re.split(r"(?<=[.?!])\s+(?=[A-Z])", metric.meaning)) == 2


def test_low_is_better_for_losses_errors_and_costs_and_high_for_all_other_metrics():
    lower = {metric.name for metric in METRICS if metric.better == "lower"}
    starts = (
        "average_drop",
        "deletion",
        "loss",
        "road_morf",
        "randomised",
        "retrained",
        "forwards",
        "backwards",
        "seconds",
    )
    assert lower == {metric.name for metric in METRICS if metric.name.startswith(starts)}


def test_average_drop_and_increase_by_hand():
    whole, explained = np.array([0.8, 0.5, 0.9]), np.array([0.4, 0.6, 0.9])
    np.testing.assert_allclose(average_drop(whole, explained), [50, 0, 0])
    assert average_drop(whole, explained).mean() == pytest.approx(16.667, abs=1e-3)
    assert increase(whole, explained).tolist() == [0, 100, 0]
    assert increase(whole, explained).mean() == pytest.approx(33.333, abs=1e-3)


def kept_pixels(mask: torch.Tensor, share: float) -> torch.Tensor:
    """`keep_largest` with the last of tied pixels."""
    return keep_largest(mask, share, torch.zeros_like(mask))[0]


def bilinear(small: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear upsampling with pixel centres at halves and clamped borders, pixel by pixel."""
    result = np.empty((height, width))
    for y in range(height):
        for x in range(width):
            row = min(max((y + 0.5) * small.shape[0] / height - 0.5, 0), small.shape[0] - 1)
            column = min(max((x + 0.5) * small.shape[1] / width - 0.5, 0), small.shape[1] - 1)
            top, left = math.floor(row), math.floor(column)
            below, right = min(top + 1, small.shape[0] - 1), min(left + 1, small.shape[1] - 1)
            down, across = row - top, column - left
            upper = small[top, left] * (1 - across) + small[top, right] * across
            lower = small[below, left] * (1 - across) + small[below, right] * across
            result[y, x] = upper * (1 - down) + lower * down
    return result


def test_an_explanation_mask_is_the_map_scaled_to_0_to_1_and_upsampled_bilinearly():
    maps = torch.tensor([[[-3.0, 1.0, 0.0], [2.0, 5.0, 1.0]], [[0.1, 0.2, 0.3], [0.4, 0.5, 0.9]]]).double()
    scaled = [[[0, 4 / 8, 3 / 8], [5 / 8, 1, 4 / 8]], [[0, 0.125, 0.25], [0.375, 0.5, 1]]]
    found = explanation_mask(maps, (10, 12))
    assert found.shape == (2, 10, 12)
    for mask, wanted in zip(found.numpy(), scaled, strict=True):
        np.testing.assert_allclose(mask, bilinear(np.array(wanted), 10, 12), atol=2.0**-21)
    torch_does = interpolate(torch.tensor(scaled).double()[:, None], (10, 12), mode="bilinear", align_corners=False)
    torch.testing.assert_close(found, torch_does[:, 0], rtol=0, atol=2.0**-21)


@pytest.mark.parametrize("constant", [0.0, -2.5, 1e-300, 3e8])
def test_a_constant_map_keeps_the_whole_image(constant):
    other = torch.arange(4).double().view(1, 2, 2)
    found = explanation_mask(torch.cat([torch.full((1, 2, 2), constant).double(), other]), (6, 6))
    assert (found[0] == 1).all()
    assert found[1].min() == 0


@pytest.mark.parametrize("map_", [[[math.nan] * 2] * 2, [[0.0, 1.0], [math.nan, 2.0]]], ids=["all", "one cell"])
def test_a_map_that_is_not_a_number_has_no_mask_no_drop_and_no_increase(map_):
    other = torch.arange(4).double().view(1, 2, 2)
    found = explanation_mask(torch.cat([torch.tensor([map_]).double(), other]), (6, 6))
    assert found[0].isnan().all()
    assert found[1].equal(explanation_mask(other, (6, 6))[0])
    whole, explained = np.array([0.8, 0.5]), np.array([math.nan, 0.6])
    for metric in (average_drop, increase):
        assert np.isnan(metric(whole, explained)).tolist() == [True, False]


@settings(deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=9, max_size=9), st.sampled_from([torch.float, torch.double]))
@example([0.0] * 8 + [2.0**-149], torch.float)  # a range below the smallest normal number
def test_an_explanation_mask_lies_within_0_and_1(values, kind):
    found = explanation_mask(torch.tensor(values, dtype=kind).view(1, 3, 3), (9, 9))
    assert found.min() >= 0
    assert found.max() <= 1
    assert torch.isfinite(found).all()
    assert found[0, 1::3, 1::3].max() == 1  # cells have a pixel at their centre


@pytest.mark.parametrize(("share", "left"), [(0.5, 25_088), (0.15, 7_527)])
def test_half_and_15_percent_of_224_by_224_distinct_pixels_are_kept(share, left):
    mask = torch.from_numpy(RNG.permutation(224 * 224) + 1.0).view(1, 224, 224)
    kept = kept_pixels(mask, share)
    assert (kept > 0).sum() == left
    assert kept[kept > 0].equal(mask[kept > 0])
    assert kept[kept > 0].min() == 224 * 224 - left + 1  # the largest


def test_a_share_of_1_keeps_all_pixels():
    mask = torch.from_numpy(RNG.random((2, 5, 5)))
    assert kept_pixels(mask, 1).equal(mask)


def test_of_pixels_at_the_threshold_the_first_are_dropped():
    #                                gone gone             gone            gone
    mask = torch.tensor([[[0.1, 0.5, 0.5, 0.5, 0.2], [0.5, 0.9, 0.3, 0.5, 0.8]]])
    wanted = [[0, 0, 0, 0.5, 0], [0.5, 0.9, 0, 0.5, 0.8]]
    np.testing.assert_allclose(kept_pixels(mask, 0.5)[0], wanted)


def test_pixels_of_value_0_are_never_kept():
    mask = torch.zeros(1, 4, 5)
    mask[0, 1, :3] = torch.tensor([0.2, 1, 0.4])
    assert kept_pixels(mask, 0.5).equal(mask)
    assert (kept_pixels(mask, 0.1) > 0).sum() == 2


def test_of_equal_pixels_the_last_are_kept():
    kept = kept_pixels(torch.ones(1, 10, 10), 0.15)
    assert kept.flatten().nonzero().flatten().tolist() == list(range(85, 100))


@pytest.mark.parametrize("share", [Fraction(1, 2), Fraction(3, 20), Fraction(9, 10), Fraction(11, 20)])
def test_the_number_of_kept_pixels_has_no_rounding_error(share):
    for pixels in range(10, 400):
        kept = kept_pixels(torch.arange(1.0, pixels + 1).view(1, 1, -1), float(share))
        assert (kept > 0).sum() == math.ceil(pixels * share)


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 5), min_size=8, max_size=30),
    st.sampled_from([Fraction(1, 2), Fraction(3, 20)]),
    st.randoms(use_true_random=False),
)
def test_the_largest_pixels_are_kept_as_in_a_loop(values, share, random):
    wanted, goal = list(values), math.ceil(len(values) * share)
    threshold = sorted(values)[math.floor(len(values) * (1 - share)) - 1]
    for place, value in enumerate(values):
        if value < threshold:
            wanted[place] = 0
    first_out = random.choices(range(4), k=len(values))
    had_a_choice = False
    for place in sorted(range(len(values)), key=lambda place: -first_out[place]):
        value = values[place]
        if value == threshold and sum(v > 0 for v in wanted) > goal:
            wanted[place] = 0
            had_a_choice = value > 0
    had_a_choice &= any(value == threshold for value in wanted)
    others = torch.rand(1, 1, len(values))  # another image in the batch changes nothing
    both = torch.cat([torch.tensor(values).float().view(1, 1, -1), others])
    found, choice = keep_largest(both, float(share), torch.tensor([first_out, first_out])[:, None])
    assert found[0, 0].tolist() == wanted
    assert choice.tolist() == [had_a_choice, False]


def test_distinct_cells_have_one_order():
    maps = RNG.permutation(49 * 3).reshape(3, 49).astype(float) - 60
    ranks = rank_cells(maps, [5, 6, 7], 4)
    assert ranks.shape == (3, 4, 49)
    for values, orders in zip(maps, ranks.numpy(), strict=True):
        for order in orders:
            assert np.argsort(order).tolist() == np.argsort(-values).tolist()


def test_only_tied_cells_are_permuted():
    (orders,) = rank_cells(SOME_TIES[None], [3], 200).numpy()
    assert (np.sort(orders, axis=1) == np.arange(7)).all()
    assert {7: {0}, 2: {1, 2}, 0.5: {3, 4, 5}, -1: {6}} == {
        value: set(orders[:, value == SOME_TIES].flat) for value in SOME_TIES
    }


def test_all_orders_of_ties_are_equally_likely():
    (orders,) = rank_cells(SOME_TIES[None], [11], 6000).numpy()
    counts = Counter(tuple(order) for order in orders)
    assert len(counts) == 2 * 6
    assert stats.chisquare(list(counts.values())).pvalue > 1e-3


def test_orders_depend_on_the_seed_and_not_on_other_images():
    ties = np.zeros((3, 16))
    together = rank_cells(ties, [1, 2, 1], 3)
    assert together[0].equal(together[2])
    assert not together[0].equal(together[1])
    assert rank_cells(ties[:1], [2], 3)[0].equal(together[1])
    assert rank_cells(ties[:1], [2], 2)[0].equal(together[1, :2])
    assert len({tuple(order) for order in together[0].tolist()}) == 3


def test_every_image_needs_a_seed():
    with pytest.raises(ValueError, match="zip"):
        rank_cells(np.zeros((2, 4)), [1], 1)


@pytest.mark.parametrize(
    ("cells", "at_once", "steps"),
    [(16, 4, [0, 4, 8, 12, 16]), (49, 10, [0, 10, 20, 30, 40, 49]), (3, 1, [0, 1, 2, 3]), (9, 20, [0, 9])],
)
def test_curve_steps_go_from_none_to_all(cells, at_once, steps):
    assert curve_steps(cells, at_once) == steps


def test_insertion_shows_the_most_important_cells_first():
    maps, steps = RNG.random((2, 9)), [0, 1, 4, 9]
    shown = insertion_patterns(rank_cells(maps, [0, 1], 3), steps)
    assert shown.shape == (2, 3, 4, 9)
    assert (shown.sum(dim=-1) == torch.tensor(steps)).all()
    assert (shown[:, :, :-1] <= shown[:, :, 1:]).all()
    for values, patterns in zip(maps, shown.numpy(), strict=True):
        for pattern, count in zip(patterns[0], steps, strict=True):
            assert set(values[pattern]) == set(sorted(values, reverse=True)[:count])


def test_area_under_curve_by_hand():
    assert area_under_curve(np.array([1, 0.5, 0.25, 0]), [0, 5, 10, 15]) == pytest.approx(0.416667, abs=1e-6)
    # 0.75 over the first third, 0.25 over the rest
    assert area_under_curve(np.array([1, 0.5, 0]), [0, 1, 3]) == pytest.approx(0.75 / 3 + 0.25 * 2 / 3)


def test_the_area_of_a_constant_is_the_constant():
    np.testing.assert_allclose(area_under_curve(np.full((2, 3, 6), 0.3), curve_steps(49, 10)), np.full((2, 3), 0.3))


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=4, max_size=4), st.floats(-2, 2), st.floats(-2, 2))
def test_area_is_linear_and_a_point_on_the_curve_adds_nothing(values, factor, offset):
    curve, steps = np.array(values), [0, 2, 6, 9]
    area = float(area_under_curve(curve, steps))
    assert area_under_curve(factor * curve + offset, steps) == pytest.approx(factor * area + offset, abs=1e-9)
    more = np.insert(curve, 2, (curve[1] + curve[2]) / 2)
    assert area_under_curve(more, [0, 2, 4, 6, 9]) == pytest.approx(area)
    assert area_under_curve(curve[::-1], [0, 3, 7, 9]) == pytest.approx(area)
    assert area_under_curve(curve, [0, 4, 12, 18]) == pytest.approx(area)


def test_pooled_maps_are_the_means_of_the_most_important_cells():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 1, 9, 5, generator=generator)
    maps, steps = RNG.integers(0, 4, (2, 9)).astype(float), [1, 2, 5, 9]
    ranks = rank_cells(maps, [8, 9], 3)
    found = pooled_maps(features, ranks, steps)
    assert found.shape == (2, 3, 4, 5)
    for image in range(2):
        for order in range(3):
            for place, count in enumerate(steps):
                cells = [cell for cell in range(9) if ranks[image, order, cell] < count]
                mean = sum(features[image, 0, cell] for cell in cells) / count
                torch.testing.assert_close(found[image, order, place], mean)
    torch.testing.assert_close(found[:, :, -1], features.mean(dim=2).expand(2, 3, 5))


def pointed(row: int, column: int, pixel: tuple[int, int], side: int = 224) -> float:
    """The pointing game of a 7x7 map with its maximum in one cell, and a mask of one pixel."""
    maps, masks = np.zeros((1, 7, 7)), np.zeros((1, side, side), bool)
    maps[0, row, column], masks[0, *pixel] = 1, True
    return pointing_game(maps, masks)[0]


@pytest.mark.parametrize("away", [(0, 14), (14, 0), (0, -14), (-14, 0), (9, 11), (0, 0), (10, -10)])
def test_a_maximum_14_pixels_from_the_mask_is_a_hit(away):
    assert pointed(1, 4, (48 + away[0], 144 + away[1])) == 1


@pytest.mark.parametrize("away", [(0, 15), (15, 0), (0, -15), (-15, 0), (9, 12), (-11, 11), (0, 60)])
def test_a_maximum_15_pixels_from_the_mask_is_a_miss(away):
    assert pointed(1, 4, (48 + away[0], 144 + away[1])) == 0


def test_the_tolerance_shrinks_with_the_image():
    assert [pointed(3, 3, (56, 56 + away), side=112) for away in (0, 7, 8, 14)] == [1, 1, 0, 0]


def test_with_several_maxima_the_expected_hit_rate_counts():
    maps, masks = np.zeros((3, 7, 7)), np.zeros((3, 224, 224), bool)
    masks[:, 32:64, 32:64] = True  # cell (1, 1); centres of its neighbours are 17 or more pixels away
    maps[0, 1, 1] = maps[0, 5, 5] = maps[0, 0, 6] = maps[0, 1, 4] = 2.0
    maps[1, 5, 5] = maps[1, 5, 6] = 2.0
    np.testing.assert_allclose(pointing_game(maps, masks), [1 / 4, 0, 1 / 49])


def test_the_pointing_game_by_a_loop_over_pixels():
    maps, masks = RNG.integers(0, 6, (12, 4, 4)).astype(float), RNG.random((12, 28, 28)) < 0.01
    masks[0] = False
    for values, mask, found in zip(maps, masks, pointing_game(maps, masks), strict=True):
        pixels = np.argwhere(mask)
        hits = []
        for row, column in np.argwhere(values == values.max()):
            centre = np.array([7 * row + 3, 7 * column + 3])
            hits.append(any(np.hypot(*(pixel - centre)) < 15 / 8 for pixel in pixels))
        assert found == (pytest.approx(np.mean(hits)) if len(pixels) else pytest.approx(np.nan, nan_ok=True))
        assert np.isnan(found) == (not mask.any())


def by_counting(selected: np.ndarray, mask: np.ndarray) -> tuple[float, float, float]:
    """Intersection over union, precision and recall of selected cells `[g, g]`, every pixel counted."""
    side = len(mask) // len(selected)
    shown = np.kron(selected, np.ones((side, side))) > 0
    both, either = int((shown & mask).sum()), int((shown | mask).sum())
    return both / either, both / int(shown.sum()), both / int(mask.sum())


def test_overlap_counts_pixels():
    masks, selected = RNG.random((3, 20, 20)) < 0.3, RNG.random((3, 5, 4, 4)) < 0.5
    covered = coverage(torch.from_numpy(masks), (4, 4))
    found = np.stack(overlap(selected.reshape(3, 5, 16), covered), axis=-1)
    wanted = [[by_counting(order, mask) for order in orders] for orders, mask in zip(selected, masks, strict=True)]
    np.testing.assert_allclose(found, wanted)
    np.testing.assert_allclose(np.stack(overlap(selected[:, 0].reshape(3, 16), covered), axis=-1), found[:, 0])


def test_coverage_is_the_share_of_each_cell_under_the_mask_for_any_number_of_masks():
    masks = RNG.random((300, 8, 8)) < 0.4
    wanted = masks.reshape(300, 2, 4, 2, 4).mean(axis=(2, 4)).reshape(300, 4)
    np.testing.assert_allclose(coverage(torch.from_numpy(masks), (2, 2)), wanted)


def test_overlap_by_hand():
    selected = np.array([[True, True, False, False]] * 2)
    coverage = np.array([[0.5, 0.0, 1.0, 0.0], [1.0, 1.0, 0.0, 0.0]])
    iou, precision, recall = overlap(selected, coverage)
    np.testing.assert_allclose(iou, [0.5 / 3, 1])
    np.testing.assert_allclose(precision, [0.25, 1])
    np.testing.assert_allclose(recall, [1 / 3, 1])


def test_an_empty_mask_has_no_localisation():
    found = [*overlap(np.ones((1, 2, 4), bool), np.zeros((1, 4))), weight_inside(np.ones((1, 4)), np.zeros((1, 4)))]
    found.append(pointing_game(np.ones((1, 2, 2)), np.zeros((1, 8, 8), bool)))
    assert all(np.isnan(values).all() for values in found)


def test_weight_inside_counts_only_positive_weight():
    coverage = np.array([0.5, 0, 1, 1])
    maps = np.array([[2.0, 1, -5, 1], [-1, -2, -3, 0], [0, 0, 3, 0], [0, 9, -1, 0]])
    found = weight_inside(maps, np.tile(coverage, (4, 1)))
    np.testing.assert_allclose(found, [(2 * 0.5 + 1) / 4, np.nan, 1, 0])


def test_a_constant_map_has_no_rank_correlation():
    assert np.isnan(spearman(np.ones((1, 9)), np.arange(9.0)[None])).all()
    assert spearman(np.arange(9.0)[None], np.exp(np.arange(9.0))[None]).item() == pytest.approx(1)
    assert spearman(np.arange(9.0)[None], -np.arange(9.0)[None]).item() == pytest.approx(-1)


def test_constant_maps_count_as_0_or_are_left_out():
    values = np.array([0.5, np.nan])
    assert scored(values, "zero").tolist() == [0.5, 0]
    np.testing.assert_array_equal(scored(values, "leave_out"), values)


NOISY = np.array([0.3, 0.3 * (1 + 1e-15), 0.3 * (1 - 3e-8), 0.7, 1e-9, 1.00001e-9])
"""Three equal values, in double and in single precision, and two small ones that differ."""


def test_values_that_differ_by_rounding_are_equal_for_every_metric():
    exact = np.array([0.3, 0.3, 0.3, 0.7, 1e-9, 1.00001e-9])
    other = np.array([5.0, 3, 1, 2, 4, 6])
    assert spearman(NOISY, other) == spearman(exact, other) == pytest.approx(stats.spearmanr(exact, other).statistic)
    assert rank_cells(NOISY[None], [3], 20).equal(rank_cells(exact[None], [3], 20))
    largest = np.array([[[1, 1 - 1e-8], [1 + 1e-8, 0.5]]])
    left = np.zeros((1, 20, 20), bool)
    left[0, :, :10] = True
    assert pointing_game(largest, left) == pytest.approx(2 / 3)
    almost = np.array([0.5, 0.5])
    assert increase(almost, almost * (1 + np.array([1e-8, 1e-4]))).tolist() == [0, 100]


HALFWAY = 0.5 + 2**-22
"""Rounded to 20 binary digits, numbers just below and just above it would differ."""


@pytest.mark.parametrize("noise", [1e-15, 3e-8])
@pytest.mark.parametrize("constant", [1 / 3, 0.1, 1e-12, -7e5, HALFWAY])
def test_a_map_that_is_constant_up_to_rounding_has_no_order(constant, noise):
    values = constant * (1 + noise * RNG.uniform(-1, 1, size=49))
    assert np.isnan(spearman(values, RNG.normal(size=49)))
    assert len({tuple(order) for order in rank_cells(values[None], [3], 5)[0].tolist()}) == 5
    assert (explanation_mask(torch.from_numpy(joined(values)).view(1, 7, 7), (224, 224)) == 1).all()


@given(st.lists(st.floats(-1e300, 1e300), min_size=1, max_size=9))
def test_values_join_the_smallest_of_their_group_and_no_others(values):
    exact = np.sort(np.array(values))
    equal = joined(exact)
    assert np.isin(equal, exact).all()
    assert (equal[1:] >= equal[:-1]).all()
    assert not larger(exact, equal).any()  # no value is further than rounding from what it became
    firsts = np.unique(equal)
    assert larger(firsts[1:], firsts[:-1]).all()
    turned = np.random.default_rng(0).permutation(len(exact))
    np.testing.assert_array_equal(joined(exact[turned]), equal[turned])
    np.testing.assert_array_equal(joined(np.array([np.nan, 1, 1 + 1e-9])), [np.nan, 1, 1])


@pytest.mark.parametrize(("count", "step"), [(49, 9e-7), (1000, 5e-7), (3, 9.5e-7 / 2 * 1.9)])
def test_a_chain_of_near_values_is_not_one_value(count, step):
    chain = 1 + step * np.arange(count)
    groups = [chain[joined(chain) == value] for value in np.unique(joined(chain))]
    assert len(groups) > 1
    assert all(group.max() - group.min() < group.max() / 2**20 for group in groups)


@pytest.mark.parametrize("images", [480, 4653])
def test_confidences_of_a_certain_classifier_keep_their_order(images):
    confidence = np.sort(1 - 10 ** -np.random.default_rng(0).uniform(2, 5.5, images))
    assert spearman(confidence, np.arange(float(images))) > 0.99


@pytest.mark.parametrize(
    ("values", "equal"),
    [([1, np.inf], False), ([-np.inf, 1], False), ([np.inf, np.inf], True), ([-0.0, 0.0], True), ([0, 5e-324], False)],
)
def test_infinity_is_near_no_number(values, equal):
    assert (len(np.unique(joined(np.array(values)))) == 1) == equal
    assert larger(np.array(values[1:]), np.array(values[:1])).item() != equal


def test_pixels_between_equal_cells_are_equal():
    noisy = np.array([[1, 1 - 3e-8, 0], [1 + 3e-8, 1, 0], [0.3, 0.3 * (1 + 3e-8), 0.7]])
    exact = torch.tensor([[[1, 1, 0], [1, 1, 0], [0.3, 0.3, 0.7]]], dtype=torch.float64)
    masks = explanation_mask(torch.from_numpy(joined(noisy.ravel())).view(1, 3, 3), (30, 30))
    assert masks.equal(explanation_mask(exact, (30, 30)))
    assert len(masks[0, :10, :10].unique()) == 1


class Fixed(torch.nn.Module):
    """Stands for a classifier of two classes that counts its images; class 0 has the probability `of(images)`."""

    def __init__(self, of):
        super().__init__()
        self.extractor, self.seen, self.device = SimpleNamespace(feature_map=of), 0, torch.device("cpu")

    def features_by(self, work, items):
        self.seen += len(items)
        return work(items)

    def logits(self, probability):
        return torch.stack([probability, 1 - probability], dim=1)[None]

    def probabilities(self, logits):
        return logits


def scores_of_mask(of, maps, side=8, legacy=False):
    """Deletion and insertion of a white image on black, and how many points both curves have."""
    white, classifier = torch.full((1, side, side, 3), 255, dtype=torch.uint8), Fixed(of)
    ranks = rank_cells(maps.reshape(1, -1), [0], 1)
    scores = mask_scores(classifier, white, torch.zeros(1, side, side, 3), torch.tensor([0]), ranks, legacy)
    return *scores[:, 0], classifier.seen


@pytest.mark.parametrize(
    ("size", "steps", "bias"),
    [(7, 49, 0.02041), (14, 66, 0.00510), (28, 53, 0.00510), (56, 51, 0.01148), (112, 51, 0.00351), (224, 51, 0.00052)],
)
def test_the_last_step_of_the_published_code_counts_as_if_the_probability_were_one(size, steps, bias):
    """With a probability of 0 everywhere the score is the bias alone; with 1 there is none."""
    maps = np.arange(size**2, dtype=float)
    assert scores_of_mask(lambda images: torch.zeros(len(images)), maps) == (0, 0, 2 * steps)
    deletion, insertion, _ = scores_of_mask(lambda images: torch.zeros(len(images)), maps, legacy=True)
    assert (deletion, insertion) == pytest.approx((bias, bias), abs=6e-6)
    for legacy in (False, True):
        same = scores_of_mask(lambda images: torch.ones(len(images)), maps, legacy=legacy)
        assert same[:2] == pytest.approx((1, 1))


def test_mask_scores_are_right_sums_over_blends_enlarged_with_aligned_corners():
    """2 x 2 mask values of an image of 4 x 4 pixels: by hand, with the pixel in the corner and the mean."""
    maps = np.array([4.0, 1, 3, 2])
    corner = scores_of_mask(lambda images: images[:, 0, 0, 0] / 255, maps, side=4)
    assert corner == (0, 1, 8)  # black at once and at all steps; white at once
    deletion, insertion, _ = scores_of_mask(lambda images: images.mean(dim=(1, 2, 3)) / 255, maps, side=4)
    assert (deletion, insertion) == pytest.approx(
        (np.mean([0.75, 0.5, 0.25, 0]), np.mean([0.25, 0.5, 0.75, 1])), abs=1e-6
    )
    pixel = scores_of_mask(lambda images: images[:, 0, 1, 0] / 255, maps, side=4)  # 2/3 of value 0, 1/3 of value 1
    assert pixel[:2] == pytest.approx((1 / 4, (2 / 3 + 2 / 3 + 2 / 3 + 1) / 4))


@pytest.mark.parametrize("cells", [2, 8, 7 * 5])
def test_mask_scores_refuse_masks_that_are_not_square(cells):
    with pytest.raises(BlaError, match=f"a mask of {cells} values is not square"):
        scores_of_mask(lambda images: torch.ones(len(images)), np.arange(float(cells)))


def test_mask_scores_blend_with_the_background_that_is_given():
    image, grey = torch.full((1, 4, 4, 3), 200, dtype=torch.uint8), torch.full((1, 4, 4, 3), 100.0)
    ranks = rank_cells(np.array([[1.0, 2, 3, 4]]), [0], 1)
    scores = mask_scores(Fixed(lambda images: images.mean(dim=(1, 2, 3)) / 255), image, grey, torch.tensor([0]), ranks)
    assert scores[:, 0] == pytest.approx(np.array([1.375, 1.625]) * 100 / 255)
