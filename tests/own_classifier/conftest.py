"""A small trained classifier, its transform, and photographs of two classes."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import bla

LABELS = ("cat", "dog", "owl")


class Net(nn.Module):
    """Features of both signs on a 3 x 5 map of a 48 x 80 input, average pooling and a linear head."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 16, 16), nn.BatchNorm2d(8), nn.Tanh())
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(8, 3)

    def forward(self, pixels):
        return self.head(self.pool(self.body(pixels)).flatten(1))


class NormalisedNet(Net):
    """The same with a normalisation before the head, as in a ConvNeXt, so that the head is not linear."""

    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(8)

    def forward(self, pixels):
        return self.head(self.norm(self.pool(self.body(pixels)).flatten(1)))


def trained(kind=Net):
    """A network with random weights and statistics, in evaluation mode."""
    torch.manual_seed(0)
    model = kind()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 1.5)
            module.weight.data.uniform_(0.5, 1.5)
    return model.eval()


TRANSFORM = bla.Transform(size=(48, 80), resize=64)


@pytest.fixture(scope="session")
def own():
    """The wrapped small classifier."""
    return bla.wrap(trained(), TRANSFORM, LABELS)


@pytest.fixture(scope="session")
def normalised():
    """A wrapped classifier whose head is not linear."""
    return bla.wrap(trained(NormalisedNet), TRANSFORM, LABELS)


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """`photos/{cat,dog}/{0,1,2}.png`, smooth coloured images of several sizes."""
    folder, rng = tmp_path_factory.mktemp("site") / "photos", np.random.default_rng(3)
    for label in ("cat", "dog"):
        (folder / label).mkdir(parents=True)
        for number, size in enumerate([(90, 70), (70, 90), (200, 100)]):
            pixels = rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).save(folder / label / f"{number}.png")
    return folder
