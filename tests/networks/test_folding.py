"""Backbones with folded batch normalisation, whose blocks take few images at a time: the same features."""

import numpy as np
import pytest
import torch
from small_networks import built, randomise
from torch import nn

from bla.base.specs import Backbone
from bla.networks.backbones import STATISTICS, Extractor, ResidualDrop
from bla.networks.folding import InSlices, fold_batch_norm
from bla.networks.sources import Network

IMAGES = np.random.default_rng(0).integers(0, 256, (7, 64, 64, 3), dtype=np.uint8)


def norms(model):
    return sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())


FOLDED = {"tf_efficientnet_b0": 0, "test_efficientnet": 0, "mobilenetv3_small_050": 0, "test_byobnet": 0}
FOLDED |= {"test_resnet": 1, "densenet121": 62}  # a batch norm before its convolution cannot be folded


@pytest.mark.parametrize(("architecture", "left"), FOLDED.items())
def test_folding_batch_norm_does_not_change_features(architecture, left):
    depth = 0 if architecture == "densenet121" else 0.2
    extractor = built(
        Backbone(
            architecture=architecture,
            weights="w",
            normalisation="imagenet",
            output_stride=None,
            stochastic_depth=depth,
            draws=5,
        )
    )
    before = {name: value.clone() for name, value in extractor.state_dict().items()}
    count, images = norms(extractor), torch.from_numpy(IMAGES)
    folded = fold_batch_norm(extractor)
    assert (norms(folded), norms(extractor)) == (left, count)
    assert left < count
    noise = extractor.drop_factors(len(images), 0) if depth else None
    for factors in (None, noise):
        with torch.no_grad():
            wanted, found = extractor(images, factors), folded(images, factors)
        assert (found - wanted).norm() <= 1e-4 * wanted.norm()
    assert before.keys() == extractor.state_dict().keys()
    assert all(torch.equal(value, before[name]) for name, value in extractor.state_dict().items())
    assert folded.drops == [m for m in folded.modules() if isinstance(m, ResidualDrop)]
    assert not set(folded.drops) & set(extractor.drops)


@pytest.mark.parametrize("depth", [0, 0.2])
@pytest.mark.parametrize("architecture", ["tf_efficientnet_lite0", "efficientnet_b0"])
def test_blocks_that_take_few_images_at_a_time_give_the_same_features_and_gradients(architecture, depth, monkeypatch):
    spec = Backbone(architecture=architecture, weights="w", normalisation="half", stochastic_depth=depth)
    extractor = built(spec, 224)
    folded = fold_batch_norm(extractor)
    images = torch.randint(0, 256, (5, 224, 224, 3), generator=torch.Generator().manual_seed(0)).float()
    sliced, counts = [module for module in folded.modules() if isinstance(module, InSlices)], []
    for module in sliced[:1]:
        module.block.register_forward_hook(lambda module, inputs, result: counts.append(len(result)))
    found = feature_gradient(folded, images)
    monkeypatch.setattr("bla.networks.folding.SLICE", 10**12)
    wanted = feature_gradient(folded, images)
    assert counts == [*[1] * 5, *[1] * 5, 0, 5, 5, 0]  # without noise, with noise, and no image
    assert not any(
        isinstance(part, ResidualDrop) for module in sliced for part in module.modules()
    )  # one factor an image
    for one, other in zip(found, wanted, strict=True):
        assert (one - other).norm() <= 1e-4 * other.norm()


def feature_gradient(extractor, images):
    """The features of images and noisy ones, none of no image, and the gradient of their squares."""
    leaf = images.clone().requires_grad_()
    features = extractor(leaf)
    (gradient,) = torch.autograd.grad(features.square().sum(), leaf)
    noisy = extractor(images, extractor.drop_factors(len(images), 0) if extractor.drops else None)
    assert extractor(images[:0]).shape == (0, *features.shape[1:])
    return features.detach(), noisy.detach(), gradient


class OtherOrder(nn.Module):
    """Defines a convolution and then its batch norm, but applies them in another order or with a layer in between."""

    def __init__(self, order):
        super().__init__()
        self.convolution = nn.Conv2d(3, 3, 8, 8)
        self.norm = nn.BatchNorm2d(3)
        self.order = order

    def features(self, x):
        layers = {"c": self.convolution, "n": self.norm, "r": nn.functional.relu}
        for letter in self.order:
            x = layers[letter](x)
        return x


@pytest.mark.parametrize(
    ("order", "folds"), [("cn", True), ("cnr", True), ("nc", False), ("crn", False), ("cnn", False)]
)
def test_a_model_is_not_folded_if_the_order_of_its_layers_forbids_it(order, folds):
    torch.manual_seed(0)
    extractor = Extractor(Network([randomise(OtherOrder(order))]), STATISTICS["imagenet"]).eval()
    with torch.no_grad():
        wanted = extractor(torch.from_numpy(IMAGES))
        found = fold_batch_norm(extractor)
        assert (found is not extractor) == folds
        torch.testing.assert_close(found(torch.from_numpy(IMAGES)), wanted, rtol=1e-4, atol=1e-4)


def test_a_model_is_not_folded_if_folding_cannot_be_checked():
    extractor = built(
        Backbone(architecture="test_coatnet", weights="w", normalisation="half"), 160
    )  # it takes no other size
    assert fold_batch_norm(extractor) is extractor


class LooksIn(nn.Module):
    """A network whose code looks into its layers: folding takes away what it looks for, or a slice leaves too little of it."""

    def __init__(self, model, look):
        super().__init__()
        self.model, self.look = model, look

    def features(self, x):
        x = self.model.blocks[0](self.model.bn1(self.model.conv_stem(x)))
        return self.look(self.model, x)


LOOKS = {
    "an attribute of a block": lambda model, x: model.blocks[1][0](x) * model.blocks[1][0].conv_dw.out_channels,
    "a part of a block": lambda model, x: model.blocks[1][0].conv_pw(x),
    "statistics": lambda model, x: x * model.bn1.running_mean[0],
    "a block called by name": lambda model, x: model.blocks[1][0](x=x),
    "a table of sizes": lambda model, x: x * {112: 1.0}[x.shape[2]],
    "a list of sizes": lambda model, x: [x, x][x.shape[2]],
    "a division": lambda model, x: x // (x.shape[2] // 112),
}


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
def test_a_network_that_looks_into_its_layers_is_left_as_it_is(look):
    """Whatever it raises then, such as AttributeError, KeyError, TypeError or IndexError."""
    model = built(Backbone(architecture="tf_efficientnet_lite0", weights="w", normalisation="half"), 224).model
    extractor = Extractor(Network([LooksIn(model, look)]), STATISTICS["half"]).eval()
    assert fold_batch_norm(extractor) is extractor
