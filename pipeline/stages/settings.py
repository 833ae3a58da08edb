"""Stage `settings`: check the whole params.yaml, and write the entries of the datasets that run to data/datasets.json.

Stages that run on several datasets depend on that file, so editing a dataset that does not run affects no stage.
"""

import json

from bla.base.atomic import save_text
from bla.base.errors import BlaError
from bla.explainers.interface import LearnedExplainer
from bla.explainers.registry import explainer_class, explainer_names
from pipeline.run.methods import method_settings
from pipeline.run.settings import DATASETS, PARAMS, Settings, did_you_mean, load_settings


def main() -> None:
    """Write data/datasets.json."""
    settings = load_settings()
    check_methods(settings)
    running = {name: settings.dataset[name].model_dump(mode="json") for name in settings.datasets}
    save_text(DATASETS, json.dumps(running, indent=1) + "\n")


def check_methods(settings: Settings) -> None:
    """Raise BlaError for an unknown method, a wrong setting of a method, or a method listed under the wrong key."""
    names = [name for name in explainer_names() if name != "attention"]  # its settings are those of the variants
    for name in settings.explainer:
        if name not in names:
            near = did_you_mean(name, names)
            raise BlaError(f"{PARAMS}: explainer.{name}: no such method in src/bla/explainers{near}")
    several = settings.multi_label
    lists = {"explainers": settings.explainers, "learned_explainers": settings.learned_explainers}
    lists |= {
        "multi_label.explainers": several.explainers,
        "multi_label.learned_explainers": several.learned_explainers,
    }
    for name in dict.fromkeys([*settings.explainer, *(name for names in lists.values() for name in names)]):
        method_settings(settings, name, explainer_class(name).Settings)
    for key, other, learned in (
        ("explainers", "learned_explainers", False),
        ("learned_explainers", "explainers", True),
        ("multi_label.explainers", "multi_label.learned_explainers", False),
        ("multi_label.learned_explainers", "multi_label.explainers", True),
    ):
        for name in lists[key]:
            if issubclass(explainer_class(name), LearnedExplainer) != learned:
                what = "does not learn" if learned else "must be fitted"
                raise BlaError(f"{PARAMS}: {key}: {name} {what}; list it under {other}")
