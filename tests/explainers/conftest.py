"""Small classifiers, images, and every method on them."""

import pytest
import torch
from small_networks import CLASSES, SIDE, Small, random_backbone, random_head
from torch import nn

from bla.base.paper import VARIANTS
from bla.explainers.learned.attention import Attention
from bla.explainers.mask_networks import build_network
from bla.explainers.registry import explainer_class
from bla.method.modules import Module, Trained
from bla.networks.classifier import Classifier
from bla.networks.folding import fold_batch_norm

CHANNELS = 96
MASKS = {"size": 4, "iterations": 2, "points": 3, "area": 0.001, "variation": 0.01}
OPTIONS = {"lime": {"patterns": 40}, "rise": {"masks": 20}, "i_gos": MASKS, "i_gos_pp": MASKS}
OPTIONS |= {"sag": {"beam": 1, "successors": 3, "sets": 2}}


@pytest.fixture(scope="session", name="random_head")
def _random_head():
    """`random_head(runs, channels, spread)`: heads of three classes."""
    return random_head


@pytest.fixture(scope="module")
def classifier(random_head):
    """Two heads on a small random backbone with a 4x4 map."""
    return Classifier(random_backbone(), random_head(2, CHANNELS)).eval()


@pytest.fixture(scope="module")
def folded(classifier, random_head):
    """The same classifier with batch normalisation folded into the convolutions."""
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
            trained = Trained(random_head(1, CHANNELS), Module(weight, torch.tensor([-40.4])), torch.zeros(1, 1))
            return Attention(classifier, VARIANTS[variant]).load(trained.state())
        explainer = explainer_class(name)
        found = explainer(classifier, explainer.Settings(**OPTIONS.get(name, {})))
        if name.startswith("l_cam"):
            generator = torch.Generator().manual_seed(8)
            shapes = {"weight": (1, CLASSES, CHANNELS), "bias": (1, CLASSES)}
            found.load({key: torch.randn(shape, generator=generator) for key, shape in shapes.items()})
        if name == "explainer_network":
            network = build_network("small", CLASSES, 8)
            with torch.no_grad():
                network.last.weight.mul_(5)  # so that maps differ by more than rounding
            state = {key: value.detach()[None] for key, value in network.state_dict().items()}
            found.load(state | {"losses": torch.zeros(1, 1)})
        if name == "xnn":
            generator = torch.Generator().manual_seed(8)
            widths = [CHANNELS, 12, 8, 5]
            shapes = {f"encoder.{i}.weight": (1, CLASSES, widths[i + 1], widths[i]) for i in range(3)}
            shapes |= {f"encoder.{i}.bias": (1, CLASSES, widths[i + 1]) for i in range(3)}
            shapes |= {"head.weight": (1, CLASSES, 5), "head.bias": (1, CLASSES)}
            found.load({key: torch.randn(shape, generator=generator) for key, shape in shapes.items()})
        return found

    return make
