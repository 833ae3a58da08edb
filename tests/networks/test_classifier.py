"""A backbone and the heads of several runs: what it answers, and the classifier of one run."""

import numpy as np
import pytest
import torch
from torch import nn

from bla.base.specs import Backbone
from bla.method.modules import Head
from bla.networks.backbones import build_backbone
from bla.networks.classifier import Classifier

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


def test_a_run_is_its_head_on_the_same_backbone_with_a_count_of_its_own(classifier, images):
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


def test_a_run_leaves_the_mode_of_the_shared_backbone_alone():
    backbone = nn.Linear(1, 1).eval()
    Classifier(backbone, Head(torch.zeros(2, 3, 4), torch.zeros(2, 3))).run(1)
    assert not backbone.training
