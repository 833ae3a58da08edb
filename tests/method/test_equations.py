"""The paper's equations against hand-computed values and mathematics."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bla.base.specs import L2XF, BoundedLogits, Pointwise
from bla.method.equations import (
    bounded_logits,
    cells_at_maximum,
    gumbel,
    hard_explanation,
    hard_weights,
    l2x_weights,
    largest_cells,
    logits_of,
    noise_shape,
    soft_explanation,
    soft_weights,
    threshold,
)

BLA = BoundedLogits(explanation="bounded_logits", head="trained", temperature=0.1, threshold_factor=0)
BLA_T = BoundedLogits(explanation="bounded_logits", head="trained", temperature=0.1, threshold_factor=0.98)
L2X_F = L2XF(explanation="l2x_f", head="trained", temperature=0.1, k=8)
POINTWISE = Pointwise(explanation="pointwise", head="trained", temperature=0.1)

scores = hnp.arrays(np.float32, (3, 9), elements=st.floats(-50, 50, width=32)).map(torch.from_numpy)


def test_a_small_example_by_hand():
    logits = bounded_logits(torch.tensor([[0.3, 2.0, -1.0]]))
    assert logits.tolist() == [[0, 0, -1]]
    q = soft_weights(logits, 0.1)
    e = np.exp(-0.1)
    np.testing.assert_allclose(q.numpy(), [[1 / (2 + e), 1 / (2 + e), e / (2 + e)]], rtol=1e-6)
    np.testing.assert_allclose(threshold(q, 1, "subtract").numpy(), np.maximum(q.numpy() - 1 / 3, 0), atol=1e-7)
    np.testing.assert_allclose(threshold(q, 1, "renormalise").numpy(), [[0.5, 0.5, 0]], atol=1e-6)
    assert threshold(q, 1, "indicator").tolist() == [[1, 1, 0]]
    assert threshold(q, 0, "indicator") is q
    assert cells_at_maximum(logits).tolist() == [[True, True, False]]
    assert hard_weights(BLA, cells_at_maximum(logits)).tolist() == [[0.5, 0.5, 0]]
    assert hard_weights(POINTWISE, hard_explanation(POINTWISE, logits)).tolist() == [[1, 1, 0]]
    assert soft_explanation(POINTWISE, logits, None).tolist() == [[0.5, 0.5, pytest.approx(1 / (1 + np.exp(0.1)))]]


def test_at_factor_one_an_image_with_all_cells_at_the_bound_has_no_weight_and_no_gradient():
    scores = torch.ones(1, 4, requires_grad=True)
    cut = threshold(soft_weights(bounded_logits(scores), 0.1), 1, "subtract")
    cut.sum().backward()
    assert cut.sum() == 0
    assert scores.grad is not None
    assert not scores.grad.any()


def test_subtraction_has_a_gradient_and_the_indicator_has_none():
    for rule, flows in (("indicator", False), ("subtract", True), ("renormalise", True)):
        logits = torch.tensor([[0.0, -3.0, -1.0]], requires_grad=True)
        cut = threshold(soft_weights(logits, 1.0), 0.5, rule)
        assert cut.requires_grad == flows
        if flows:
            (gradient,) = torch.autograd.grad(cut[0, 0], logits)
            assert gradient.any()


@given(scores, st.sampled_from([0.02, 0.1, 1.0]))
def test_soft_weights_sum_to_one_and_are_uniform_on_cells_at_the_bound(g, temperature):
    logits = bounded_logits(g)
    q = soft_weights(logits, temperature)
    torch.testing.assert_close(q.sum(-1), torch.ones(3))
    for row, at in zip(q, logits == 0, strict=True):
        assert len(set(row[at].tolist())) <= 1


@given(scores)
def test_hard_explanations_are_the_cells_at_zero_or_else_the_largest(g):
    logits = bounded_logits(g)
    hard = cells_at_maximum(logits)
    assert hard.any(-1).all()
    reached = (logits == 0).any(-1)
    assert torch.equal(hard[reached], logits[reached] == 0)


@given(scores, st.integers(1, 9))
def test_l2x_f_keeps_the_k_largest_cells(g, k):
    hard = largest_cells(g, k)
    assert hard.sum(-1).tolist() == [k] * 3
    if k < 9:
        assert (g.masked_fill(~hard, torch.inf).amin(-1) >= g.masked_fill(hard, -torch.inf).amax(-1)).all()


@given(scores, st.floats(0.1, 1.5))
def test_the_threshold_keeps_the_larger_weights_and_never_increases_them(g, factor):
    q = soft_weights(bounded_logits(g), 0.1)
    cut = threshold(q, factor, "subtract")
    assert (cut <= q).all()
    assert torch.equal(cut > 0, q > factor / 9)
    renormalised = threshold(q, factor, "renormalise").sum(-1)
    assert torch.isclose(renormalised, torch.ones(3), atol=1e-5).logical_or(cut.sum(-1) == 0).all()


@given(scores, st.permutations(range(9)))
def test_selection_does_not_depend_on_the_position_of_a_cell(g, order):
    for variant in (BLA, BLA_T):
        logits = logits_of(variant, g)
        moved = logits[:, list(order)]
        assert torch.equal(hard_explanation(variant, moved), hard_explanation(variant, logits)[:, list(order)])
        torch.testing.assert_close(
            soft_explanation(variant, moved, None), soft_explanation(variant, logits, None)[:, list(order)]
        )


def test_gumbel_noise_is_finite_and_has_the_right_mean_and_variance():
    uniform = torch.rand(200_000, generator=torch.Generator().manual_seed(0))
    noise = gumbel(torch.cat([uniform, torch.tensor([0.0, 1 - 2**-24])]))
    assert noise.isfinite().all()
    assert abs(float(noise.mean()) - np.euler_gamma) < 0.01
    assert abs(float(noise.var()) - np.pi**2 / 6) < 0.03


def test_without_noise_l2x_weights_are_the_softmax_and_only_l2x_f_has_noise():
    logits = torch.randn(2, 9, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(l2x_weights(logits, 0.1, torch.zeros(3, 2, 9)), soft_weights(logits, 0.1))
    assert noise_shape(L2X_F, 49) == (8, 49)
    assert noise_shape(BLA, 49) is None
