"""Fixtures that close figures and speed up Holm's correction."""

import gc

import pytest
from matplotlib import pyplot


@pytest.fixture(autouse=True)
def closed():
    """Close the figures of a test."""
    yield
    pyplot.close("all")


@pytest.fixture(autouse=True, scope="session")
def frozen():
    """Freeze imported objects: statsmodels collects garbage at every correction, which takes 0.2 s each time."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
