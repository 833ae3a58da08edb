"""Stage `unstated_choices`: effects of the choices that the paper leaves open, in reports/tables/ and a figure."""

import shutil
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from tqdm import tqdm

from bla.base.errors import BlaError
from bla.base.specs import Backbone
from bla.experiments.runs import one_table
from bla.experiments.unstated_choices.experiment import HALVED, RUN, measure, preparations
from bla.experiments.unstated_choices.figures import choices
from bla.experiments.unstated_choices.tables import cells, effects
from bla.runtime.cache import cache_key, cached_table
from bla.runtime.seeds import derive_seed
from pipeline.artifacts.arrays import load_tensor
from pipeline.artifacts.extraction import extract_features
from pipeline.artifacts.figures import FIGURES, save_picture
from pipeline.artifacts.images import prepared_files, some_images
from pipeline.artifacts.models import BACKBONES
from pipeline.artifacts.tables import save_tables
from pipeline.run.entries import running
from pipeline.run.environment import WORK, choose_device
from pipeline.run.settings import Settings, load_settings


def main() -> None:
    """Write unstated_choices_runs.csv, unstated_choices.csv (means), _effects.csv (paired tests) and a figure."""
    settings = load_settings()
    spec, parts = settings.unstated_choices, []
    for dataset in running(settings, "unstated_choices"):
        made, skipped = preparations(settings.dataset[dataset].backbone, spec.draws, settings.dataset[dataset].images.image_size)  # fmt: skip
        print(f"{dataset}: {skipped}" if skipped else "", end="\n" if skipped else "")
        for backbone in made:
            used = [
                backbone,
                settings.dataset[dataset].training,
                spec.runs,
                spec.images,
                settings.seed,
                str(choose_device()),
            ]
            data = [*prepared_files(dataset), BACKBONES / f"{dataset}.safetensors"]
            name = f"unstated_choices-{dataset}-{backbone.normalisation}-{backbone.stochastic_depth:g}"
            work = partial(_measure, settings, dataset, backbone)
            parts.append(cached_table(WORK, name, cache_key([Path(__file__)], used, data), work))
    runs = one_table(parts, RUN)
    changes = effects(runs)
    save_tables("unstated_choices", {"_runs": runs, "": cells(runs), "_effects": changes})
    save_picture(FIGURES / "unstated_choices.png", choices(changes))


def _measure(settings: Settings, dataset: str, backbone: Backbone) -> pd.DataFrame:
    """All columns on one preparation of a dataset: a row per run. A kill loses at most one preparation."""
    schedule, device, runs = settings.dataset[dataset].training, choose_device(), settings.unstated_choices.runs
    count = settings.unstated_choices.images
    stores = extract_features(dataset, backbone, settings.seed, "unstated_choices", Path(__file__), count)
    train, test = ((load_tensor(store / "features.npy").flatten(-3, -2).to(device), torch.from_numpy(some_images(dataset, split, count)[2]).to(device)) for split, store in stores.items())  # fmt: skip
    seeds = [derive_seed(settings.seed, dataset, "fidelity", run) for run in range(runs)]
    title = f"{dataset}, {backbone.normalisation}, stochastic depth {backbone.stochastic_depth:g}"
    with tqdm(total=3 * runs, desc=title, unit="run", disable=None) as bar:
        try:
            table = measure(train, test, seeds, schedule, bar.update)
        except BlaError as error:
            raise BlaError(f"unstated_choices: {title}: {error}") from error
    for store in stores.values():
        shutil.rmtree(store)
    as_trained = backbone.normalisation in HALVED
    table = table.assign(
        dataset=dataset, draws=backbone.draws, normalisation="as_trained" if as_trained else "keras_2021"
    )
    return table.assign(stochastic_depth=float(backbone.stochastic_depth))[RUN]
