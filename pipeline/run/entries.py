"""The entries of params.yaml used by stages that run on several datasets."""

from bla.base.paper import departures
from pipeline.run.settings import Settings


def running(settings: Settings, experiment: str) -> list[str]:
    """The datasets of an experiment that are also in `datasets`; prints a line if there are none."""
    datasets = [name for name in getattr(settings, experiment).datasets if name in settings.datasets]
    if not datasets:
        lists = f"{experiment}.datasets and datasets"
        print(f"{experiment}: its tables are empty, since no dataset is in both {lists}; add one to both")
    return datasets


def dataset_departures(settings: Settings, name: str) -> list[str]:
    """How a dataset's settings, the number of runs and alpha differ from the paper's, in words."""
    entry = settings.dataset[name]
    return departures(entry.images, entry.backbone, entry.training, settings.runs, settings.statistics.alpha)
