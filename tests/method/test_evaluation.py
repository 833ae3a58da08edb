"""Evaluation with hard and soft explanations, by hand and in any chunks."""

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy

from bla.base.errors import BlaError
from bla.base.specs import L2XF, BoundedLogits, ConceptVector, NoExplanation, Pointwise, Schedule
from bla.method.equations import hard_weights
from bla.method.evaluation import evaluate
from bla.method.modules import Head, Module, Trained
from bla.method.training import train

NONE = NoExplanation(explanation="none")
BLA = BoundedLogits(explanation="bounded_logits", head="trained", temperature=0.1, threshold_factor=0)
BLA_T = BoundedLogits(explanation="bounded_logits", head="trained", temperature=0.1, threshold_factor=0.98)
BLA_PH = BoundedLogits(explanation="bounded_logits", head="frozen", temperature=0.1, threshold_factor=0.98)
L2X_F = L2XF(explanation="l2x_f", head="trained", temperature=0.1, k=3)
POINTWISE = Pointwise(explanation="pointwise", head="trained", temperature=0.1)
VARIANTS = {"none": NONE, "bla": BLA, "bla_t": BLA_T, "bla_ph": BLA_PH, "l2x_f": L2X_F, "pointwise": POINTWISE}
VARIANTS |= {
    a: ConceptVector(explanation="concept_vector", head="trained", temperature=0.1, activation=a)
    for a in ("linear", "relu")
}
SCHEDULE = Schedule(batch_size=16, epochs=3, learning_rate=0.01, dropout=0.2, adam_epsilon=1e-7)
N, SEEDS = 70, [11, 12, 13]


def fit(data, *rest) -> Trained:
    """Train on one draw of the images."""
    return train(data[0][None], data[1], *rest)


def test_evaluation_by_hand():
    features = torch.tensor([[[1.0, 0.0], [0.0, 2.0], [0.0, 4.0]]])  # one image, three cells, two channels
    head = Head(torch.eye(2)[None], torch.zeros(1, 2))
    u, b = torch.tensor([[-1.0, 1.0]]), torch.tensor([-2.0])  # scores -3, 0, 2: the last two reach the bound
    result = evaluate(features, torch.tensor([1]), BLA, Trained(head, Module(u, b), torch.zeros(1, 1)), [0])
    assert result.explained.logits.tolist() == [[[-3, 0, 0]]]
    assert result.explained.hard.tolist() == [[[False, True, True]]]
    assert result.correct.tolist() == [[True]]
    torch.testing.assert_close(result.loss, -torch.log_softmax(torch.tensor([[0.0, 3.0]]), 1)[:, 1:])
    q = torch.softmax(torch.tensor([-0.3, 0, 0]), 0)
    soft = torch.tensor([[q[0], 2 * q[1] + 4 * q[2]]])
    torch.testing.assert_close(result.explained.loss, -torch.log_softmax(soft, 1)[:, 1:])


@pytest.mark.parametrize("name", VARIANTS)
def test_evaluation_depends_neither_on_chunks_nor_on_the_order_of_images(name, data, head, monkeypatch):
    variant = VARIANTS[name]
    trained = fit(data, variant, head, SEEDS, SCHEDULE)
    whole = evaluate(*data, variant, trained, SEEDS)
    monkeypatch.setattr("bla.method.evaluation.EVALUATION_CHUNK", 7)
    pieces = evaluate(*data, variant, trained, SEEDS)
    torch.testing.assert_close(pieces.loss, whole.loss, rtol=1e-5, atol=1e-6)
    assert torch.equal(pieces.correct, whole.correct)
    if whole.explained:
        torch.testing.assert_close(pieces.explained.soft, whole.explained.soft, rtol=1e-5, atol=1e-6)
    order = torch.randperm(N, generator=torch.Generator().manual_seed(5))
    mixed = evaluate(data[0][order], data[1][order], variant, trained, SEEDS)
    torch.testing.assert_close(mixed.loss, whole.loss[:, order], rtol=1e-5, atol=1e-6)


def test_evaluation_has_no_dropout_and_draws_only_the_noise_of_l2x_f(data, head):
    features, labels = data
    baseline = fit(data, NONE, head, SEEDS, SCHEDULE)
    logits = torch.stack(
        [features.float().mean(1) @ w.T + b for w, b in zip(baseline.head.weight, baseline.head.bias, strict=True)]
    )
    wanted = torch.stack([cross_entropy(own, labels, reduction="none") for own in logits])
    torch.testing.assert_close(evaluate(features, labels, NONE, baseline, SEEDS).loss, wanted, rtol=1e-4, atol=1e-5)
    for variant in (BLA, L2X_F):
        trained = fit(data, variant, head, SEEDS, SCHEDULE)
        one, other = (evaluate(features, labels, variant, trained, seeds) for seeds in (SEEDS, [1, 2, 3]))
        assert torch.equal(one.loss, other.loss)
        assert torch.equal(one.explained.hard, other.explained.hard)
        assert torch.equal(one.explained.soft, other.explained.soft) == (variant is BLA)


def test_hard_weights_pool_with_a_mean_over_the_selected_cells(data, head):
    trained = fit(data, BLA, head, SEEDS, SCHEDULE)
    explained = evaluate(*data, BLA, trained, SEEDS).explained
    run, image = 1, 4
    mean = data[0][image].float()[explained.hard[run, image]].mean(dim=0)
    pooled_by_weights = hard_weights(BLA, explained.hard)[run, image] @ data[0][image].float()
    torch.testing.assert_close(pooled_by_weights, mean)


def test_pointwise_attention_sums_cells_and_can_keep_none():
    features = torch.tensor([[[1.0, 0.0], [0.0, 2.0]], [[-3.0, 0.0], [-1.0, 0.0]]])
    head = Head(torch.eye(2)[None], torch.tensor([[0.0, 0.5]]))
    module = Module(torch.tensor([[1.0, 1.0]]), torch.zeros(1))  # image 1: both at the bound; image 2: none
    result = evaluate(features, torch.tensor([1, 1]), POINTWISE, Trained(head, module, torch.zeros(1, 1)), [0])
    assert result.explained.hard.tolist() == [[[True, True], [False, False]]]
    wanted = torch.tensor([[1.0, 2.5], [0.0, 0.5]])  # the sum of both cells and the bias; the bias alone
    torch.testing.assert_close(result.loss[0], -torch.log_softmax(wanted, 1)[:, 1])
    soft = result.explained.soft[0]
    torch.testing.assert_close(soft, torch.sigmoid(torch.tensor([[0.0, 0.0], [-0.3, -0.1]])))
    by_soft = torch.einsum("bn,bnc->bc", soft, features) + head.bias
    torch.testing.assert_close(result.explained.loss[0], -torch.log_softmax(by_soft, 1)[:, 1])


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("name", VARIANTS)
def test_features_that_are_not_finite_are_named(name, value, data, head):
    trained, features = fit(data, VARIANTS[name], head, SEEDS, SCHEDULE), data[0].clone()
    features[9, 4, 2] = value
    with pytest.raises(BlaError, match=r"^the features of 1 of 70 evaluated images are NaN or infinite: numbers 9, "):
        evaluate(features, data[1], VARIANTS[name], trained, SEEDS)


@pytest.mark.parametrize("name", ["none", "bla_t"])
def test_a_loss_that_is_not_finite_by_the_weights_is_refused(name, data, head):
    trained = fit(data, VARIANTS[name], head, SEEDS, SCHEDULE)
    trained = replace(trained, head=Head(trained.head.weight * torch.nan, trained.head.bias))
    with pytest.raises(BlaError, match="a loss is not finite in evaluation; check the weights of heads and modules"):
        evaluate(*data, VARIANTS[name], trained, SEEDS)
