"""Agreement of masks with objects: values computed by hand, scikit-learn, and the controls."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score, jaccard_score, roc_auc_score

from bla.metrics.segmentation import F1_THRESHOLDS, IOU_THRESHOLDS, SEGMENTATION, agreement, boundary


def square(top, left, size=6, side=20):
    mask = np.zeros((side, side), bool)
    mask[top : top + size, left : left + size] = True
    return mask


def score(mask, true):
    return {name: values[0] for name, values in agreement(mask[None].astype(float), true[None]).items()}


def test_two_squares_that_overlap_in_half():
    found = score(square(4, 4), square(4, 7))  # 36 pixels each, 18 of them in both; 400 in all
    assert found["f1"] == found["soft_f1"] == pytest.approx(0.5)
    assert found["iou"] == found["soft_iou"] == pytest.approx(18 / 54)
    assert found["soft_accuracy"] == pytest.approx(1 - 36 / 400)
    assert found["object_coverage"] == pytest.approx(0.5)
    assert found["background_coverage"] == pytest.approx(18 / 364)
    assert found["auc"] == pytest.approx(0.5 * (1 + 0.5 - 18 / 364))
    assert found["boundary_f"] == pytest.approx(1)  # every boundary is moved by three pixels


def test_values_between_zero_and_one():
    true = np.array([[[True, True, False, False]]])
    found = agreement(np.array([[[0.6, 0.2, 0.4, 0.0]]]), true)
    assert found["f1"][0] == pytest.approx((2 * 1 / 4 + 2 * 1 / 3 + 0) / 3)  # selected: 2, 1 and no pixels
    selected = [(2, 3), (1, 3), (1, 3), (1, 2), (1, 2), (0, 2), (0, 2), (0, 2), (0, 2)]  # both, either: t = .1 to .9
    assert found["iou"][0] == pytest.approx(np.mean([both / either for both, either in selected]))
    assert found["soft_f1"][0] == pytest.approx(2 * 0.8 / (1.2 + 2))
    assert found["soft_iou"][0] == pytest.approx(0.8 / 2.4)
    assert found["soft_accuracy"][0] == pytest.approx(1 - (0.4 + 0.8 + 0.4) / 4)
    assert found["auc"][0] == pytest.approx(3 / 4)
    assert found["object_coverage"][0] == pytest.approx(0.4)
    assert found["background_coverage"][0] == pytest.approx(0.2)


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_constant_masks(value):
    """An object of 9 % of the image: F1 of everything is 2 * .09 / 1.09; at 0.5 one F1 threshold of three selects."""
    found = score(np.full((20, 20), value), square(4, 4))
    f1 = {0.0: 0, 0.5: 0.18 / 1.09 / 3, 1.0: 0.18 / 1.09}[value]
    iou = {0.0: 0, 0.5: 0.09 * 4 / 9, 1.0: 0.09}[value]
    assert found["f1"] == pytest.approx(f1)
    assert found["iou"] == pytest.approx(iou)
    assert found["soft_accuracy"] == pytest.approx({0.0: 0.91, 0.5: 0.5, 1.0: 0.09}[value])
    assert found["auc"] == 0.5
    assert found["object_coverage"] == found["background_coverage"] == pytest.approx(value)
    assert found["boundary_f"] == 0


def test_the_perfect_mask_is_best_everywhere():
    found = score(square(4, 4), square(4, 4))
    assert found.pop("background_coverage") == 0
    assert set(found.values()) == {1.0}


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_scores_are_those_of_scikit_learn_and_accuracy_is_the_overlap(seed):
    rng = np.random.default_rng(seed)
    mask, true = rng.random((7, 9)).round(1), rng.random((7, 9)) < 0.4
    if not 0 < true.sum() < true.size:
        return
    found = score(mask, true)
    flat = true.ravel()
    assert found["f1"] == pytest.approx(np.mean([f1_score(flat, (mask > t).ravel(), zero_division=0) for t in F1_THRESHOLDS]))  # fmt: skip
    assert found["iou"] == pytest.approx(np.mean([jaccard_score(flat, (mask > t).ravel()) for t in IOU_THRESHOLDS]))
    assert found["auc"] == pytest.approx(roc_auc_score(flat, mask.ravel()))
    soft = ((mask * true).sum() + ((1 - mask) * (1 - true)).sum()) / true.size
    assert found["soft_accuracy"] == pytest.approx(soft)
    assert agreement(mask[None], true[None]).keys() == {metric.name for metric in SEGMENTATION}


@pytest.mark.parametrize(("moved", "f"), [(0, 1), (3, 1), (4, 0.0)])
def test_the_boundary_counts_within_three_pixels(moved, f):
    """Half planes: their boundary is a line."""
    true, mask = np.zeros((30, 30), bool), np.zeros((30, 30), bool)
    true[:, 10:], mask[:, 10 + moved :] = True, True
    assert score(mask, true)["boundary_f"] == pytest.approx(f)
    assert np.argwhere(boundary(true))[:, 1].tolist() == [10] * 30  # the image's edge is none


def test_precision_and_recall_of_the_boundary():
    true, mask = square(2, 2, 6, 40), square(2, 2, 6, 40) | square(25, 25, 6, 40)
    assert score(mask, true)["boundary_f"] == pytest.approx(2 * 0.5 * 1 / 1.5)
    assert score(true, mask)["boundary_f"] == pytest.approx(2 * 0.5 * 1 / 1.5)


def test_images_without_an_object_or_a_background_have_no_score():
    none, full = np.zeros((5, 5), bool), np.ones((5, 5), bool)
    assert all(np.isnan(value) for value in score(full, none).values())
    found = score(full, full)
    assert {name for name, value in found.items() if np.isnan(value)} == {"auc", "background_coverage", "boundary_f"}
