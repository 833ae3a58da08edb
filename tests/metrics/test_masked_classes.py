"""Scores of masked images: values computed by hand."""

import numpy as np
import pytest
import torch

from bla.metrics.masked_classes import MASKED, THRESHOLDS, class_specificity, masked_scores, softmax


def scores_with(*probabilities):
    return np.log(np.array([probabilities]))


def one(area, shown, hidden, present):
    found = masked_scores(np.array([area]), shown, hidden, np.array([present], bool))
    assert found.keys() == {metric.name for metric in MASKED}
    return {name: values[0] for name, values in found.items()}


@pytest.mark.parametrize(
    ("area", "p", "saliency"),
    [(0.2, 0.5, -0.9162907), (0.0, 1 - 1e-12, -2.9957323), (0.03, 1 - 1e-12, -2.9957323), (1.0, 0.25, np.log(4))],
)
def test_the_saliency_metric_and_its_floor(area, p, saliency):
    found = one(area, scores_with(p, 1 - p), scores_with(0.5, 0.5), [1, 0])
    assert found["saliency"] == pytest.approx(saliency, abs=1e-6)
    assert found["area"] == area


def test_the_saliency_metric_adds_the_true_classes_each_once():
    found = one(0.1, scores_with(0.3, 0.2, 0.5), scores_with(1, 1, 1), [1, 1, 0])
    assert found["saliency"] == pytest.approx(np.log(0.1) - np.log(0.5))


def test_a_class_that_is_not_seen_at_all_has_a_finite_value():
    found = one(0.1, np.array([[-800.0, 800]]), np.zeros((1, 2)), [1, 0])
    assert found["saliency"] == pytest.approx(np.log(0.1) - np.log(1e-16))


def test_sparsity_and_entropy():
    certain, uniform = np.array([[900.0, 0, 0, 0]]), np.zeros((1, 4))
    assert one(0.1, certain, uniform, [1, 0, 0, 0])["sparsity"] == 1
    assert one(0.1, uniform, uniform, [1, 0, 0, 0])["sparsity"] == pytest.approx(1 / 4)
    assert one(0.1, certain, uniform, [1, 0, 0, 0])["hidden_entropy"] == pytest.approx(np.log(4))
    assert one(0.1, certain, certain, [1, 0, 0, 0])["hidden_entropy"] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("shown", "f1"), [([2, 1, -1], 1), ([2, -1, -1], 2 / 3), ([2, -1, 3], 0.5), ([-1, -1, 3], 0), ([-1, -1, -1], 0)]
)
def test_the_f1_of_the_classes_of_an_image(shown, f1):
    assert one(0.1, np.array([shown], float), np.zeros((1, 3)), [1, 1, 0])["classes_f1"] == pytest.approx(f1)


def test_an_image_without_a_class_has_no_saliency_and_no_f1():
    found = one(0.1, np.zeros((1, 3)), np.zeros((1, 3)), [0, 0, 0])
    assert np.isnan(found["saliency"])
    assert np.isnan(found["classes_f1"])
    assert found["sparsity"] == pytest.approx(1 / 3)


def test_the_class_specificity_of_a_classifier_that_counts_colours():
    """Two images of two classes: class k is where channel k is bright; the classifier's odds are its sums."""
    images = torch.zeros(2, 2, 2, 3)
    images[0, 0, 0, 0] = 4  # class 0 at the top left, class 1 at the bottom right
    images[:, 1, 1, 1] = 2
    present = np.array([[True, True], [False, True]])
    masks = torch.zeros(2, 2, 2, 2)
    masks[:, 0, 0, 0] = 0.45  # shown at 0.1, 0.2, 0.3 and 0.4
    masks[:, 1, 1, 1] = 1

    def scores_of(shown, cut):
        return np.log1p((shown * cut[..., None]).sum(dim=(1, 2))[:, :2].double().numpy())

    found = class_specificity(scores_of, images, masks, present)
    assert found.shape == (2, 3)
    # Image 0 without a mask has odds of 5 to 3; under the mask of class 0 5 to 1, or 1 to 1 above 0.45; of class 1 1 to 3.
    assert found[0] == pytest.approx([100 * 5 / 8, 100 * (4 * 5 / 6 + 5 * 0.5) / 9, 100 * 0.25])
    second = [100 * 0.75, 100 * 0.5, 100 * 0.75]  # image 1: 1 to 3; nothing under the mask of class 0; 1 to 3
    first = [100 * 3 / 8, 100 * (4 / 6 + 5 * 0.5) / 9, 100 * 0.75]
    assert found[1] == pytest.approx(np.mean([first, second], axis=0))


def test_a_class_that_no_image_has_is_nan():
    present = np.array([[True, False]])
    found = class_specificity(lambda x, m: np.zeros((1, 2)), torch.zeros(1, 2, 2, 3), torch.zeros(1, 2, 2, 2), present)
    assert np.isfinite(found[0]).all()
    assert np.isnan(found[1]).all()
    assert len(THRESHOLDS) == 9


def test_softmax_of_large_scores():
    np.testing.assert_allclose(softmax(np.array([[1000.0, 1000, -1000]])), [[0.5, 0.5, 0]])
