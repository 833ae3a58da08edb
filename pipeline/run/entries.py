"""The entries of params.yaml used by stages that run on several datasets."""

from bla.base.paper import departures
from pipeline.run.settings import Settings

TRAIN_HEADS = ("planted_bias", "two_network_l2x", "unstated_choices")
"""Experiments that train classifiers of their own, so that they say nothing about the user's."""


def running(settings: Settings, experiment: str) -> list[str]:
    """The datasets of an experiment that are also in `datasets`; prints a line if there are none, or for one left out."""
    datasets = [name for name in getattr(settings, experiment).datasets if name in settings.datasets]
    own = [name for name in datasets if experiment in TRAIN_HEADS and settings.dataset[name].has_own_head]
    for name in own:
        print(f"{name}: left out of {experiment}, which trains classifiers; this dataset has classifier own")
    datasets = [name for name in datasets if name not in own]
    if not datasets and not own:
        lists = f"{experiment}.datasets and datasets"
        print(f"{experiment}: its tables are empty, since no dataset is in both {lists}; add one to both")
    return datasets


def dataset_departures(settings: Settings, name: str) -> list[str]:
    """How a dataset's settings, the number of runs and alpha differ from the paper's, in words."""
    entry = settings.dataset[name]
    return departures(entry.images, entry.backbone, entry.training, settings.runs, settings.statistics.alpha)
