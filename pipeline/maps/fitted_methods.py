"""Which learned methods are fitted on a dataset."""

from bla.explainers.registry import explainer_class
from pipeline.run.settings import Settings


def learned_methods(dataset: str, settings: Settings) -> list[str]:
    """Those of `learned_explainers`; on a dataset in `faithfulness.left_out`, without those that train on images."""
    every = dataset not in settings.faithfulness.left_out
    return [name for name in settings.learned_explainers if every or not explainer_class(name).trains_on_images]
