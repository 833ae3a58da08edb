"""Maps of explanation modules."""

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from bla.base.paper import VARIANTS
from bla.base.specs import Schedule
from bla.explainers.all_maps import features_of
from bla.explainers.contract import check_explainer, check_learned
from bla.explainers.interface import CONSTANTS, TrainingData, marked_if_short
from bla.explainers.learned.attention import Attention
from bla.explainers.learned.explainer_network import ExplainerNetwork
from bla.explainers.learned.l_cam_img import LCamImg
from bla.explainers.learned.xnn import XNN
from bla.explainers.mask_networks import NETWORKS
from bla.explainers.x_features import XNNSettings


@pytest.mark.parametrize("variant", ["l2x_f", "bla", "bla_t"])
def test_attention_is_the_softmax_of_the_modules_logits(variant, method, classifier, images, targets, seeds):
    explainer = method(f"attention {variant}", classifier.run(0))
    found = explainer.explain(images, targets, seeds)
    with torch.no_grad():
        features = classifier.extractor.feature_map(images).double().numpy()
    scores = np.einsum("bchw,c->bhw", features, explainer.module.weight[0].double().numpy()) - 40.4
    assert (scores > 0).any()
    assert (scores < 0).any()
    logits = scores if variant == "l2x_f" else np.minimum(scores, 0)
    odds = np.exp(0.1 * logits)
    np.testing.assert_allclose(found, odds / odds.sum(axis=(1, 2), keepdims=True), rtol=1e-4)
    np.testing.assert_allclose(found.sum(dim=(1, 2)), 1, rtol=1e-9)


@pytest.mark.parametrize("variant", ["l2x_f", "bla", "bla_t", "bla_ph"])
def test_attention_keeps_the_promises_of_learned_methods(variant, classifier, images, targets):
    schedule = Schedule(batch_size=2, epochs=2, learning_rate=0.01, dropout=0.2, adam_epsilon=1e-7)
    features = features_of(classifier, images).half()
    data = TrainingData(features, (4, 4), images.numpy(), torch.tensor([0, 1, 2]), schedule, torch.device("cpu"))
    method = Attention(classifier, VARIANTS[variant])
    check_learned(method, data, [5, 6])
    assert method.state["losses"].shape == (2, 2)
    check_explainer(method.run(1), images, targets)


@pytest.mark.parametrize("variant", ["bla", "bla_t", "bla_ph"])
def test_the_objective_is_the_loss_beside_the_best_constant_weights_under_both_heads(variant, classifier, images):
    schedule = Schedule(batch_size=2, epochs=3, learning_rate=0.01, dropout=0, adam_epsilon=1e-7)
    labels = torch.tensor([0, 1, 2])
    data = TrainingData(features_of(classifier, images), (4, 4), None, labels, schedule, torch.device("cpu"))
    method = Attention(classifier, VARIANTS[variant])
    method.load(method.fit(data, [5, 6]))
    found = method.objective(data, [7, 8])
    features, state, settings = data.features[0], method.state, method.settings
    own = torch.einsum("bnc,rc->rbn", features, state["module.weight"]) + state["module.bias"][:, None, None]
    weights = (settings.temperature * own.clamp(max=0)).softmax(dim=2)
    weights = (weights - settings.threshold_factor / 16).clamp(min=0) if settings.threshold_factor else weights
    heads = [(state["head.weight"], state["head.bias"]), (classifier.tail.weight, classifier.tail.bias)]
    for run in range(2):
        weight, bias = (tensor[run] for tensor in heads[0])
        scores = torch.einsum("bn,bnc->bc", weights[run], features) @ weight.T + bias
        assert found[run, 0].item() == pytest.approx(cross_entropy(scores, labels).item(), rel=1e-3, abs=1e-4)
        constant = [
            cross_entropy(features.mean(dim=1) * scale @ w[run].T + b[run], labels).item()
            for w, b in heads
            for scale in CONSTANTS
        ]
        assert found[run, 1].item() == pytest.approx(min(constant), rel=1e-4)


@pytest.mark.parametrize(("count", "rows"), [(2, [0, 2]), (3, [0, 1, 3]), (5, [0, 1, 2, 3, 4]), (9, [0, 1, 2, 3, 4])])
def test_some_images_are_evenly_spread_with_their_features_and_labels(count, rows):
    features, images = torch.arange(10.0).view(2, 5, 1, 1), np.arange(5, dtype=np.uint8).reshape(5, 1, 1, 1)
    schedule = Schedule(batch_size=2, epochs=2, learning_rate=0.01, dropout=0, adam_epsilon=1e-7, images_in_memory=3)
    data = TrainingData(features, (1, 1), images, torch.arange(5) * 10, schedule, torch.device("cpu")).some(count)
    assert data.features.flatten().tolist() == [*map(float, rows), *(5.0 + row for row in rows)]
    assert data.images is not None
    assert data.images.flatten().tolist() == rows
    assert data.labels.tolist() == [10 * row for row in rows]
    assert data.schedule.images_in_memory is None


LABELS, WIDE, RUNS = 16, 1280, 2
"""Classes and channels of painted birds."""


def mask_network(name):
    """A state of all runs, with the tensors that `fit` adds."""
    tensors = NETWORKS[name][0](LABELS).state_dict()
    return {key: value.detach().expand(RUNS, *value.shape) for key, value in tensors.items()}


def autoencoders():
    widths = (WIDE, 128, 64, 5)
    state = {f"encoder.{i}.weight": torch.zeros(RUNS, LABELS, widths[i + 1], widths[i]) for i in range(3)}
    state |= {f"encoder.{i}.bias": torch.zeros(RUNS, LABELS, widths[i + 1]) for i in range(3)}
    state |= {"head.weight": torch.zeros(RUNS, LABELS, 5), "head.bias": torch.zeros(RUNS, LABELS)}
    return state | {name: torch.zeros(RUNS, LABELS) for name in ("r_squared", "converged", "epochs")}


@pytest.mark.parametrize(
    ("kind", "state", "expected"),
    [
        (LCamImg, {"weight": torch.zeros(RUNS, LABELS, WIDE), "bias": torch.zeros(RUNS, LABELS)}, 16 * 1280 + 16),
        (ExplainerNetwork, mask_network("small"), 121_760),
        (XNN, autoencoders(), 16 * (172_555 + 173_824)),  # encoder and head, decoder
    ],
)
def test_trained_parameters_are_all_weights_and_nothing_that_is_reported(kind, state, expected):
    marked = marked_if_short(state | ({} if kind is XNN else {"losses": torch.zeros(RUNS, 3)}), 1, 2)
    assert kind.trained_parameters(marked) == expected


def test_the_statistics_of_batch_normalisation_are_not_trained():
    network = NETWORKS["deeplab_v3"][0](LABELS)
    expected = sum(parameter.numel() for parameter in network.parameters())
    assert ExplainerNetwork.trained_parameters(mask_network("deeplab_v3")) == expected


def test_an_autoencoder_trains_encoder_head_and_decoder_of_each_class(classifier):
    schedule = Schedule(batch_size=2, epochs=1, learning_rate=0.1, dropout=0, adam_epsilon=1e-7)
    features = torch.rand(1, 20, 1, 96, generator=torch.Generator().manual_seed(0))
    data = TrainingData(features, (1, 1), None, torch.arange(20) % 3, schedule, torch.device("cpu"))
    state = XNN(classifier, XNNSettings(epochs=1)).fit(data, [5, 6])
    layers = [(96, 128), (128, 64), (64, 5), (5, 64), (64, 128), (128, 96)]
    of_class = sum(inputs * outputs + outputs for inputs, outputs in layers) + 5 + 1
    assert XNN.trained_parameters(state) == 3 * of_class
