"""Heads and explanation modules by hand."""

import pytest
import torch

from bla.method.modules import Concept, Module, pooled


@pytest.mark.parametrize(
    ("rectified", "shift"), [(False, 1.0 * 5 - 2.0 * 3), (True, 1.0 * 5 - 2.0 * 3), (True, -2.0 * 3)]
)
def test_a_concept_vector_by_hand(rectified, shift):
    """Two cells of two channels: u.(g + f_i) for g = W (f_1, f_2) + c."""
    features, u = torch.tensor([[[1.0, 2.0], [0.5, -1.0]]]), torch.tensor([[1.0, -2.0]])
    weight = torch.tensor([[[4.0, 0.5, 0.0, 0.0], [0.0, 0.0, 2.0, -1.0]]])  # g = (5, 2) + c
    first = 0.0 if shift != -6 else -10.0  # below 0, where the rectifier cuts
    module = Module(u, torch.tensor([0.25]), Concept(weight, torch.tensor([[first, 1.0]]), rectified))
    wanted = torch.tensor([[[1.0 - 4.0, 0.5 + 2.0]]]) + 0.25 + shift
    torch.testing.assert_close(module(features), wanted)
    torch.testing.assert_close(module(features[None]), wanted)


def test_pooling_of_half_precision_does_not_overflow():
    features = torch.full((2, 49, 3), 60000.0).half()
    torch.testing.assert_close(pooled(features), features[:, :1].float())
