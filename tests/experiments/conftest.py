"""No test leaves a figure open, and corrections by Holm are quick."""

import gc

import pytest
from matplotlib import pyplot


@pytest.fixture(autouse=True)
def closed():
    """Close what a test drew."""
    yield
    pyplot.close("all")


@pytest.fixture(autouse=True, scope="session")
def frozen():
    """Freeze imported objects: statsmodels collects garbage at every correction, which takes 0.2 s each time."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
