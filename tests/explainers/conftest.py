"""Small classifiers, images, and every method on them."""

import pytest
import torch
from torch import nn
from torch.nn.functional import leaky_relu

from bla.base.paper import VARIANTS
from bla.base.specs import Backbone
from bla.explainers.learned.attention import Attention
from bla.explainers.registry import explainer_class
from bla.method.modules import Head, Module
from bla.networks.backbones import build_backbone, fold_batch_norm
from bla.networks.classifier import Classifier

SIDE, CLASSES, CHANNELS = 64, 3, 96
OPTIONS = {"lime": {"patterns": 40}, "rise": {"masks": 20}}


class Small(nn.Module):
    """A backbone of one convolution, with features of both signs and a channel that is constant."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("mean", torch.tensor([120.0, 110, 90]).view(3, 1, 1))
        self.convolution = nn.Conv2d(3, 6, 16, 16).requires_grad_(False)
        self.convolution.weight.copy_(torch.randn(6, 3, 16, 16, generator=generator) / 10)
        self.convolution.bias.copy_(torch.randn(6, generator=generator))
        self.convolution.weight[2] = 0
        self.convolution.bias[2] = 1.5

    def normalised(self, images):
        return (images.permute(0, 3, 1, 2).float() - self.mean) / 60

    def of_normalised(self, pixels):
        return leaky_relu(self.convolution(pixels), 0.3)

    def feature_map(self, images):
        return self.of_normalised(self.normalised(images))


@pytest.fixture(scope="session")
def random_head():
    """`random_head(runs, channels, spread)`: heads of three classes."""

    def make(runs: int, channels: int, spread: float = 0.5) -> Head:
        generator = torch.Generator().manual_seed(3)
        bias = torch.randn(runs, CLASSES, generator=generator)
        return Head(torch.randn(runs, CLASSES, channels, generator=generator) * spread, bias)

    return make


def backbone():
    torch.manual_seed(0)
    extractor = build_backbone(Backbone("test_resnet", "none", "imagenet", 16), SIDE).eval().requires_grad_(False)
    for module in extractor.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.uniform_(0.5, 1.5)
            module.bias.normal_(0, 0.3)
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 1.5)
    return extractor


@pytest.fixture(scope="module")
def classifier(random_head):
    """Two heads on a small random backbone with a 4x4 map."""
    return Classifier(backbone(), random_head(2, CHANNELS)).eval()


@pytest.fixture(scope="module")
def folded(classifier, random_head):
    """The same with batch normalisation folded into the convolutions."""
    extractor = fold_batch_norm(classifier.extractor)
    norms = [sum(isinstance(m, nn.BatchNorm2d) for m in some.modules()) for some in (classifier.extractor, extractor)]
    assert norms[1] < norms[0] / 2
    return Classifier(extractor, random_head(2, CHANNELS)).eval()


@pytest.fixture(scope="module")
def small(random_head):
    """One head on `Small`."""
    return Classifier(Small(), random_head(1, 6)).eval()


@pytest.fixture(scope="module")
def images():
    """Noise on 8x8 patches of random colours, so that cells differ."""
    generator = torch.Generator().manual_seed(1)
    coarse = torch.randint(0, 200, (3, 8, 8, 3), generator=generator)
    fine = torch.randint(0, 56, (3, SIDE, SIDE, 3), generator=generator)
    return (coarse.repeat_interleave(8, dim=1).repeat_interleave(8, dim=2) + fine).to(torch.uint8)


@pytest.fixture(scope="module")
def targets():
    return torch.tensor([2, 0, 1])


@pytest.fixture(scope="module")
def seeds():
    return torch.tensor([5, 6, 7])


@pytest.fixture(scope="session")
def method():
    """`method("cam", classifier)`: a method by its name, or the explanation module of a variant, `attention bla_t`."""

    def make(label, classifier):
        name, _, variant = label.partition(" ")
        if name == "attention":
            weight = torch.randn(1, CHANNELS, generator=torch.Generator().manual_seed(8)) * 2
            return Attention(classifier, VARIANTS[variant], Module(weight, torch.tensor([-40.4])))
        return explainer_class(name)(classifier, **OPTIONS.get(name, {}))

    return make
