"""Images that something can be learned from, and untrained heads."""

import pytest
import torch

from bla.method.initialisation import initial_head

N, CELLS, CHANNELS, CLASSES, SEEDS = 70, 9, 6, 3, [11, 12, 13]


@pytest.fixture(scope="module")
def data():
    """Images whose class shows in a few cells, so that there is something to learn; the last batch is short."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(N) % CLASSES
    features = torch.rand(N, CELLS, CHANNELS, generator=generator)
    features[torch.arange(N), labels + 2, labels] += 3
    return features.half(), labels


@pytest.fixture(scope="module")
def draws(data):
    """Three draws of the images, each with noise of its own."""
    noise = torch.rand(3, *data[0].shape, generator=torch.Generator().manual_seed(1))
    return (data[0] * (noise + 0.5)).half(), data[1]


@pytest.fixture(scope="module")
def head():
    return initial_head(SEEDS, CHANNELS, CLASSES)
