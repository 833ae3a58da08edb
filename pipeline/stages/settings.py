"""Stage `settings`: check the whole params.yaml, and write the entries of the datasets that run to data/datasets.json.

Stages of several datasets depend on that file, and so not on entries that wait.
"""

import json

from bla.base.atomic import save_text
from pipeline.run.settings import DATASETS, load_settings


def main() -> None:
    """Write data/datasets.json."""
    settings = load_settings()
    running = {name: settings.dataset[name].model_dump(mode="json") for name in settings.datasets}
    save_text(DATASETS, json.dumps(running, indent=1) + "\n")
