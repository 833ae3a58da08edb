"""The small CNN of section 4.1 against one run at a time in torch's own layers."""

import pytest
import torch
from torch import nn

from bla.base.errors import BlaError
from bla.base.specs import BoundedLogits, Optimiser
from bla.datasets.moved_digits import generate
from bla.method.equations import hard_weights
from bla.method.modules import EVALUATION_CHUNK
from bla.networks.small_cnn import CELLS, FILTERS, evaluate, initial, train

BLA_T = BoundedLogits(
    explanation="bounded_logits", head="trained", temperature=0.1, threshold_factor=1, threshold_rule="subtract"
)
SCHEDULE = Optimiser(batch_size=16, epochs=1, learning_rate=1e-3, adam_epsilon=1e-7)
POOLINGS = pytest.mark.parametrize("pooling", ["mean", "flat"])
VARIANTS = pytest.mark.parametrize("variant", [None, BLA_T], ids=["bl", "bla_t"])


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


@pytest.fixture(scope="module")
def digits():
    images, labels = generate((3, 8), 96, "train", 0)
    return torch.from_numpy(images).float() / 255, torch.from_numpy(labels)


def layers(network, run):
    """One run in torch's own layers."""
    parts, channels = [], 1
    for layer, filters in enumerate(FILTERS):
        convolution = nn.Conv2d(channels, filters, 5, padding="same")
        rows = slice(run * filters, (run + 1) * filters)
        convolution.load_state_dict({"weight": network.kernels[layer][rows], "bias": network.biases[layer][rows]})
        parts += [convolution, nn.ReLU(), *([nn.MaxPool2d(2)] if layer < 2 else [])]
        channels = filters
    return nn.Sequential(*parts)


@POOLINGS
def test_each_run_agrees_with_a_network_of_torch_layers(pooling, digits):
    network, images = initial(generators(1, 2, 3), pooling, True), digits[0][:7]
    features = network.features(images.expand(3, *images.shape))
    assert features.shape == (3, 7, CELLS, 16)
    for run in range(3):
        own = layers(network, run)(images[:, None]).flatten(2).transpose(1, 2)
        torch.testing.assert_close(features[run], own)
        v = own.mean(1) if pooling == "mean" else own.flatten(1)
        answer = v @ network.head.weight[run, 0] + network.head.bias[run, 0]
        torch.testing.assert_close(network.answer(features, None, pooling)[run], answer)


@POOLINGS
def test_equal_weights_change_nothing_and_a_single_cell_hides_all_other_cells(pooling, digits):
    network = initial(generators(1), pooling, True)
    features = network.features(digits[0][None, :5])
    equal, one = torch.full((1, 5, CELLS), 1 / CELLS), torch.zeros(1, 5, CELLS)
    one[..., 10] = 1
    torch.testing.assert_close(network.answer(features, equal, pooling), network.answer(features, None, pooling))
    other = features.clone()
    other[:, :, :10] = 7
    assert network.answer(features, one, pooling).equal(network.answer(other, one, pooling))
    if pooling == "mean":  # n w f / n
        torch.testing.assert_close(network.answer(features, one, pooling), network.head(features[:, :, 10])[..., 0])


@POOLINGS
def test_a_run_has_the_same_initial_weights_with_and_without_a_module(pooling):
    with_module, without = (initial(generators(5), pooling, module) for module in (True, False))
    assert without.module is None
    assert all(a.equal(b) for a, b in zip(with_module.parameters(), without.parameters(), strict=False))
    limit = (6 / (25 + 8 * 25)) ** 0.5
    assert 0.9 * limit < with_module.kernels[0].abs().max() <= limit


@POOLINGS
@VARIANTS
def test_a_run_is_the_same_in_any_group(pooling, variant, digits):
    together = train(*digits, pooling, variant, [1, 2, 3], SCHEDULE)
    alone = train(*digits, pooling, variant, [2], SCHEDULE)
    for whole, part in zip(together.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(whole.view(3, *part.view(1, -1).shape)[1], part.view(1, -1), rtol=1e-3, atol=1e-5)


def test_the_first_step_changes_every_parameter_by_the_learning_rate(digits):
    """Adam's first step has the size of the learning rate, against the gradient."""
    images, labels = digits[0][:16], digits[1][:16]
    network = train(images, labels, "flat", None, [4], SCHEDULE)
    first = initial(generators(4), "flat", False)
    moved = [(after - before).abs() for after, before in zip(network.parameters(), first.parameters(), strict=True)]
    assert max(part.max().item() for part in moved) == pytest.approx(1e-3, rel=0.01)
    assert all(part.max() > 0 for part in moved)


@VARIANTS
def test_training_and_evaluation_do_not_change_their_inputs(variant, digits):
    images, labels = (part.clone() for part in digits)
    network = train(images, labels, "mean", variant, [1], SCHEDULE)
    before = [value.clone() for value in network.parameters()]
    evaluate(images, labels, "mean", variant, network)
    assert images.equal(digits[0])
    assert labels.equal(digits[1])
    assert all(a.equal(b) for a, b in zip(before, network.parameters(), strict=True))
    assert not any(value.requires_grad for value in network.parameters())


@POOLINGS
def test_evaluation_weights_hard_cells_equally_and_does_not_depend_on_the_batch(pooling):
    images, labels = generate((3, 8), EVALUATION_CHUNK + 5, "test", 1)
    images, labels = torch.from_numpy(images).float() / 255, torch.from_numpy(labels)
    network = initial(generators(1, 2), pooling, True)
    whole, last = (evaluate(images[s], labels[s], pooling, BLA_T, network) for s in (slice(None), slice(-5, None)))
    torch.testing.assert_close(whole.loss[:, -5:], last.loss)
    assert whole.explained.hard[:, -5:].equal(last.explained.hard)
    features = network.features(images[-5:].expand(2, 5, 28, 28))
    answer = network.answer(features, hard_weights(BLA_T, last.explained.hard), pooling)
    probability = torch.where(labels[-5:] == 1, answer, -answer).sigmoid()
    torch.testing.assert_close(last.loss, -probability.log(), rtol=1e-4, atol=1e-6)
    assert last.correct.equal(probability > 0.5)


@VARIANTS
def test_the_network_learns_to_classify_digits(variant):
    images, labels = generate((0, 1), 400, "train", 0)
    images, labels = torch.from_numpy(images).float() / 255, torch.from_numpy(labels)
    network = train(
        images,
        labels,
        "flat",
        variant,
        [0],
        Optimiser(batch_size=16, epochs=4, learning_rate=3e-3, adam_epsilon=1e-7),
    )
    result = evaluate(images, labels, "flat", variant, network)
    correct = result.correct if variant is None else result.explained.correct
    assert correct.double().mean() > 0.95


def test_a_non_finite_loss_is_an_error_with_a_remedy(digits):
    with pytest.raises(BlaError, match="epoch 1; lower the learning rate"):
        train(digits[0] * float("inf"), digits[1], "mean", None, [0], SCHEDULE)
