"""Stage `fidelity`: what each choice that the paper leaves open changes, in reports/tables/ and a figure."""

import hashlib
import shutil
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import torch
from tqdm import tqdm

from bla.base.errors import BlaError
from bla.base.specs import Backbone, NoExplanation
from bla.experiments.unstated_choices.tables import COLUMNS, cells, effects, preparations
from bla.method import equations as selection
from bla.method import modules as models
from bla.method import training
from bla.method.modules import Evaluation
from bla.method.training import evaluate, initial_head, train, train_sweep
from bla.networks import backbones
from bla.plotting.figures import choices, save_figure
from bla.runtime.seeds import derive_seed
from pipeline.artifacts.files import content_key, load_tensor, replacing, save_table
from pipeline.artifacts.paths import BACKBONES, FIGURES, IMAGES, TABLES
from pipeline.run.settings import Settings, load_settings
from pipeline.run.stage import WORK, choose_device, run_stage
from pipeline.stages.features import fill_features

RUN = ["dataset", "normalisation", "stochastic_depth", "draws", "column", "run", "n_images", "accuracy", "loss"]


def main() -> None:
    """Write fidelity_runs.csv, fidelity.csv (means), fidelity_effects.csv (paired tests) and figures/fidelity.png."""
    settings = load_settings()
    datasets = [name for name in settings.fidelity.datasets if name in settings.datasets]
    if not datasets:
        print("fidelity: none of fidelity.datasets is among the datasets that run, so there is nothing to compare")
    empty = pd.DataFrame(columns=[*RUN, "explanation_size"])
    tables = [
        _measure(settings, dataset, backbone)
        for dataset in datasets
        for backbone in preparations(settings.dataset[dataset].backbone, settings.fidelity.draws)
    ]
    runs = pd.concat(tables) if tables else empty
    changes = effects(runs)
    save_table(TABLES / "fidelity_runs.csv", runs)
    save_table(TABLES / "fidelity.csv", cells(runs))
    save_table(TABLES / "fidelity_effects.csv", changes)
    with replacing(FIGURES / "fidelity.png") as part:
        save_figure(choices(changes), part, "png")


def _measure(settings: Settings, dataset: str, backbone: Backbone) -> pd.DataFrame:
    """All columns on one preparation of a dataset: a row a run.

    Kept in .work under a hash of all that decides it, so that a kill loses one preparation at most.
    """
    schedule, device, runs = settings.dataset[dataset].training, choose_device(), settings.fidelity.runs
    data = (IMAGES / dataset / "manifest.csv").read_bytes() + (BACKBONES / f"{dataset}.safetensors").read_bytes()
    told: list[object] = [hashlib.sha256(data).hexdigest(), asdict(settings.dataset[dataset].images), asdict(backbone)]
    told += [(IMAGES / dataset / f"{split}_images.npy").stat().st_mtime_ns for split in ("train", "test")]
    told += [asdict(schedule), runs, settings.seed, str(device), torch.__version__, version("timm")]
    told += [Path(module.__file__ or "").read_text() for module in (backbones, models, selection, training)]
    told += [{key: asdict(column) for key, column in COLUMNS.items()}, Path(__file__).read_text()]
    kept = WORK / f"fidelity-{content_key(told)}.csv"
    if kept.exists():
        return pd.read_csv(kept)
    stores = fill_features(dataset, backbone, settings.seed, "fidelity")
    (features, labels), (test_features, test_labels) = (
        (
            load_tensor(stores[split] / "features.npy").to(device),
            load_tensor(IMAGES / dataset / f"{split}_labels.npy").to(device),
        )
        for split in ("train", "test")
    )
    # The same random numbers for every column and preparation, so that only the choice differs within a pair.
    seeds = [derive_seed(settings.seed, dataset, "fidelity", run) for run in range(runs)]
    first, second = ([derive_seed(seed, phase) for seed in seeds] for phase in ("baseline", "variant"))
    initial = initial_head(seeds, features.shape[3], int(labels.max()) + 1)
    name = f"{dataset}, {backbone.normalisation}, stochastic depth {backbone.stochastic_depth:g}"
    explaining = {key: column for key, column in COLUMNS.items() if not isinstance(column, NoExplanation)}
    with tqdm(total=3 * runs, desc=name, unit="run", disable=None) as bar:
        try:
            bl = train(features, labels, COLUMNS["bl"], initial, first, schedule, progress=bar.update)
            start = bl.head, second, schedule, schedule.epochs
            bl_plus = train(features, labels, COLUMNS["bl_plus"], *start, progress=bar.update)
            sweep = train_sweep(features, labels, list(explaining.values()), *start, progress=bar.update)
        except BlaError as error:
            raise BlaError(f"fidelity: {name}: {error}") from error
    columns = {"bl": bl, "bl_plus": bl_plus} | dict(zip(explaining, sweep, strict=True))
    last = [derive_seed(seed, "evaluation") for seed in seeds]
    tables = [
        _table(evaluate(test_features, test_labels, column, columns[key], last)).assign(column=key)
        for key, column in COLUMNS.items()
    ]
    table = pd.concat(tables).assign(dataset=dataset, normalisation=backbone.normalisation)
    table = table.assign(stochastic_depth=float(backbone.stochastic_depth), draws=backbone.draws)
    with replacing(kept) as part:
        table[[*RUN, "explanation_size"]].to_csv(part, index=False)
    for store in stores.values():
        shutil.rmtree(store)
    return pd.read_csv(kept)


def _table(result: Evaluation) -> pd.DataFrame:
    """Accuracy, loss and explanation size of each run."""
    table = pd.DataFrame({"run": range(len(result.loss)), "n_images": result.loss.shape[1]})
    table["accuracy"] = result.correct.double().mean(dim=1).numpy()
    table["loss"] = result.loss.double().mean(dim=1).numpy()
    table["explanation_size"] = float("nan")
    if result.explained:
        table["explanation_size"] = result.explained.hard.sum(dim=2).double().mean(dim=1).numpy()
    return table


if __name__ == "__main__":
    run_stage(main)
