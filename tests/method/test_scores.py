"""Probabilities, losses and accuracy of one class per image, and of several."""

import math

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from bla.method.scores import class_count, correct, loss_as, losses, probabilities, scores_of

SCORES = torch.tensor([[2.0, 0.0, -1.0], [-1.0, 3.0, 1.0]])
ONE = torch.tensor([0, 2])
SEVERAL = torch.tensor([[True, False, False], [False, True, True]])


def test_softmax_probabilities_sum_to_1_and_sigmoid_probabilities_are_per_class():
    torch.testing.assert_close(probabilities(SCORES, "softmax").sum(dim=1), torch.ones(2))
    expected = 1 / (1 + math.exp(-2))
    assert probabilities(SCORES, "sigmoid")[0, 0].item() == pytest.approx(expected)


def test_labels_determine_the_scores_and_the_number_of_classes():
    assert (scores_of(ONE), scores_of(SEVERAL)) == ("softmax", "sigmoid")
    assert (class_count(ONE), class_count(SEVERAL)) == (3, 3)


def test_losses_agree_with_torch_for_each_run():
    runs = torch.stack([SCORES, 2 * SCORES, -SCORES])
    expected = torch.stack([cross_entropy(scores, ONE, reduction="none") for scores in runs])
    torch.testing.assert_close(losses(runs, ONE), expected)
    expected = torch.stack(
        [binary_cross_entropy_with_logits(s, SEVERAL.float(), reduction="none").sum(1) for s in runs]
    )
    torch.testing.assert_close(losses(runs, SEVERAL), expected)


def test_a_prediction_of_several_classes_is_correct_if_every_class_is_correct():
    assert correct(SCORES, ONE).tolist() == [True, False]
    assert correct(SCORES, SEVERAL).tolist() == [True, True]  # a score of 0 is not positive
    assert correct(torch.tensor([[2.0, -0.1, -1.0]]), SEVERAL[:1]).tolist() == [True]


def test_a_sigmoid_classifier_of_one_class_per_image_is_scored_with_one_hot_labels():
    expected = losses(SCORES, torch.tensor([[True, False, False], [False, False, True]]))
    torch.testing.assert_close(loss_as("sigmoid", SCORES, ONE), expected)
    torch.testing.assert_close(loss_as("softmax", SCORES, ONE), losses(SCORES, ONE))
