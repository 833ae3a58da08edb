"""Learnable features, and untrained heads."""

import pytest
import torch
from small_networks import learnable_images

from bla.method.initialisation import initial_head

N, CELLS, CHANNELS, CLASSES, SEEDS = 70, 9, 6, 3, [11, 12, 13]


@pytest.fixture(scope="module")
def data():
    """Features and labels; the last batch is smaller."""
    return learnable_images(N, CELLS, CHANNELS, CLASSES)


@pytest.fixture(scope="module")
def draws(data):
    """Three draws of the images with different noise."""
    noise = torch.rand(3, *data[0].shape, generator=torch.Generator().manual_seed(1))
    return (data[0] * (noise + 0.5)).half(), data[1]


@pytest.fixture(scope="module")
def head():
    return initial_head(SEEDS, CHANNELS, CLASSES)
