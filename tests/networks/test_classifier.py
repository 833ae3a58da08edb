"""Classifiers: heads of several runs, the network's own tail, and the classifier of one run."""

import numpy as np
import pytest
import torch
from torch import nn

from bla.base.errors import BlaError
from bla.base.specs import Backbone
from bla.method.modules import Head
from bla.networks.backbones import build_backbone
from bla.networks.classifier import Classifier, OwnTail, padded_size

SIDE, RUNS, IMAGES, CLASSES = 64, 2, 3, 3


@pytest.fixture(scope="module")
def classifier():
    """Two heads on a small random backbone with a 4x4 map."""
    torch.manual_seed(0)
    extractor = (
        build_backbone(
            Backbone(architecture="test_resnet", weights="none", normalisation="imagenet", output_stride=16), SIDE
        )
        .eval()
        .requires_grad_(False)
    )
    channels = extractor.model.num_features
    return Classifier(extractor, Head(torch.randn(RUNS, CLASSES, channels), torch.randn(RUNS, CLASSES))).eval()


@pytest.fixture(scope="module")
def images():
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (IMAGES, SIDE, SIDE, 3), dtype=torch.uint8, generator=generator)


def same(found, expected):
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=1e-4)


def test_a_classifier_pools_with_equal_weights_and_applies_each_head(classifier, images):
    features = torch.randn(2, 96, 3, 2, generator=torch.Generator().manual_seed(0))
    pooled = features.double().numpy().sum(axis=(2, 3)) / 6
    heads = zip(classifier.tail.weight.double().numpy(), classifier.tail.bias.double().numpy(), strict=True)
    expected = [[weight @ row + bias for row in pooled] for weight, bias in heads]
    np.testing.assert_allclose(classifier.logits(features), expected, atol=1e-4)
    with torch.no_grad():
        same(classifier(images), classifier.logits(classifier.extractor.feature_map(images)))


@pytest.mark.parametrize(
    ("images", "size"), [(0, 0), (1, 1), (2, 2), (3, 4), (15, 16), (16, 16), (17, 32), (45, 64), (512, 512)]
)
def test_a_batch_is_filled_up_to_a_power_of_two_on_a_gpu_alone(images, size):
    assert padded_size(images, torch.device("cuda")) == size
    assert padded_size(images, torch.device("cpu")) == images


@pytest.mark.parametrize("size", [IMAGES, 4, 8])
def test_images_that_fill_a_batch_up_change_no_score_no_gradient_and_no_count(size, classifier, images, monkeypatch):
    model, targets, seen = classifier.run(0), torch.tensor([2, 0, 1]), []
    with torch.no_grad():
        expected = model(images)
    features, slopes = model.feature_gradient(images, targets)
    scores, gradients = model.pixel_gradient(images.float(), targets)
    monkeypatch.setattr("bla.networks.classifier.padded_size", lambda images, device: size)
    model = classifier.run(0)
    hook = model.extractor.model.conv1.register_forward_hook(lambda module, given, result: seen.append(len(result)))
    same(model(images), expected)
    assert (seen, model.forwards) == ([size], IMAGES)
    same(model(images.float().requires_grad_()).detach(), expected)
    assert seen == [size, IMAGES]
    for value, before in zip(
        (*model.feature_gradient(images, targets), *model.pixel_gradient(images.float(), targets)),
        (features, slopes, scores, gradients),
        strict=True,
    ):
        same(value, before)
    assert (model.forwards, model.backwards) == (4 * IMAGES, 2 * IMAGES)
    hook.remove()


def test_a_run_is_its_head_on_the_shared_backbone_with_its_own_count_of_passes(classifier, images):
    with torch.no_grad():
        before, together = classifier.forwards, classifier(images)
        assert classifier.forwards == before + IMAGES
        for number in range(RUNS):
            alone = classifier.run(number)
            assert alone.extractor is classifier.extractor
            assert not alone.training
            assert not any(parameter.requires_grad for parameter in (alone.tail.weight, alone.tail.bias))
            same(alone(images), together[number : number + 1])
            assert alone(images[:2]).shape == (1, 2, CLASSES)
            assert alone.forwards == IMAGES + 2
    assert classifier.forwards == before + IMAGES


def test_a_run_of_a_classifier_in_training_mode_is_in_training_mode():
    classifier = Classifier(nn.Identity(), Head(torch.zeros(2, 3, 4), torch.zeros(2, 3)))
    assert classifier.train().run(1).training
    assert not classifier.eval().run(1).training


def test_a_run_does_not_change_the_mode_of_the_shared_backbone():
    backbone = nn.Linear(1, 1).eval()
    Classifier(backbone, Head(torch.zeros(2, 3, 4), torch.zeros(2, 3))).run(1)
    assert not backbone.training


class Tail(nn.Module):
    """A network with its own tail."""

    def __init__(self, *layers):
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def tail(self, features):
        return self.layers(features)


def pooling_tail():
    return Tail(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(), nn.Linear(6, CLASSES)).eval()


def test_a_tail_of_average_pooling_and_a_linear_layer_has_a_linear_head():
    network = pooling_tail()
    head = Classifier(nn.Identity(), OwnTail(network)).linear_head()
    assert head.weight.shape == (1, CLASSES, 6)
    assert torch.equal(head.weight[0], network.layers[3].weight)


def test_a_linear_head_without_a_bias_has_a_bias_of_zero():
    network = Tail(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, CLASSES, bias=False)).eval()
    head = Classifier(nn.Identity(), OwnTail(network)).linear_head()
    assert torch.equal(head.weight[0], network.layers[2].weight)
    assert torch.equal(head.bias, torch.zeros(1, CLASSES))


@pytest.mark.parametrize(
    "layers",
    [
        (nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(6, CLASSES)),
        (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, CLASSES)),
        (nn.Flatten(), nn.Linear(24, CLASSES)),
        (nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        (nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, CLASSES)),
        (nn.Hardtanh(-6, 6), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, CLASSES)),
        (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(6), nn.Linear(6, CLASSES)),
    ],
    ids=["max pooling", "two layers", "fully connected", "no linear layer", "ReLU", "clipped values", "norm"],
)
def test_any_other_tail_has_no_linear_head(layers):
    with pytest.raises(BlaError, match="no linear head on average-pooled features"):
        Classifier(nn.Identity(), OwnTail(Tail(*layers).eval())).linear_head()


def test_an_own_tail_gives_the_scores_of_one_run():
    network, features = pooling_tail(), torch.randn(2, 6, 2, 3)
    classifier = Classifier(nn.Identity(), OwnTail(network), "sigmoid")
    scores = classifier.logits(features)
    assert scores.shape == (1, 2, CLASSES)
    torch.testing.assert_close(scores[0], network.tail(features))
    torch.testing.assert_close(classifier.probabilities(scores), scores.sigmoid())
    assert (classifier.runs, classifier.is_pooled) == (1, False)


def test_scaled_features_are_the_map_times_a_number(classifier, images):
    with torch.no_grad():
        scaled = classifier.with_scaled_features(3.0)
        same(scaled.features(images), 3 * classifier.features(images))
        same(scaled(images), classifier.logits(3 * classifier.extractor.feature_map(images)))
