"""Stage `l2x`: section 4.1, L2X with two networks, on a frozen backbone and on digits, in reports/tables/ and a figure."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from bla.base.errors import BlaError
from bla.base.specs import Schedule
from bla.datasets import SPLITS, spread_over_classes
from bla.experiments.runs import means
from bla.experiments.two_network_l2x import digits as l2x_digits
from bla.experiments.two_network_l2x.l2x import evaluate, masked, train
from bla.experiments.two_network_l2x.tables import DIGITS, MEASURES, Seen, differences, picture
from bla.metrics.localisation import overlap
from bla.networks import small_cnn
from bla.networks.backbones import Extractor, batch_size_for, fold_batch_norm, load_backbone
from bla.networks.patches import cell_means
from bla.plotting.figures import save_figure
from bla.runtime.seeds import derive_seed
from bla.runtime.threads import side_by_side
from pipeline.artifacts.files import load_array, load_tensor, replacing, save_table
from pipeline.artifacts.paths import BACKBONES, FIGURES, IMAGES, PUBLISHED, TABLES
from pipeline.artifacts.runs import load_features
from pipeline.run.settings import Settings, load_settings
from pipeline.run.stage import choose_device, run_stage
from pipeline.stages.small_cnn import data_name, load_split

PICTURED = 8
SETTING = ["reading", "k", "n_train_images"]
Row = dict[str, object]
RUN = ["dataset", "reading", "temperature", "background", "straight_through", "k", "run", "seed", "n_train_images"]
RUN += ["n_images", "n_images_left_out", "n_classes", *MEASURES]
DIGIT_RUN = ["data", "reading", "temperature", "k", "run", "seed", "n_train_images", "n_images", *DIGITS]


@dataclass(frozen=True)
class Data:
    """A dataset: images uint8 `[N, H, W, 3]` of both splits, features `[D, N, n, C]` and `[M, n, C]`, labels, the training
    images that are used, and the share `[M, n]` of each patch of a test image that the object covers, if that is known."""

    extractor: Extractor
    images: Tensor
    features: Tensor
    labels: Tensor
    rows: Tensor
    test: tuple[Tensor, Tensor, Tensor]
    coverage: NDArray[np.float64] | None
    left_out: int


def main() -> None:
    """Write l2x_runs.csv, l2x.csv (means), l2x_tests.csv, l2x_digits_runs.csv, l2x_digits.csv and figures/l2x.png."""
    settings, device = load_settings(), choose_device()
    spec = settings.l2x
    datasets = [name for name in spec.datasets if name in settings.datasets]
    if not datasets:
        print("l2x: none of l2x.datasets is among the datasets that run, so only digits are tried")
    # Nothing here gains much from threads: a CPU trains one run in each.
    size, workers = (1, torch.get_num_threads()) if device.type == "cpu" else (spec.digits.runs, 1)
    digits = [load_split(settings, split, device) for split in SPLITS]
    jobs: list[Callable[[], Any]] = [
        partial(_digit_runs, settings, digits, range(start, min(start + size, spec.digits.runs)))
        for start in range(0, spec.digits.runs, size)
    ]
    first = len(jobs)
    for name in datasets:
        data = _load(settings, name)
        jobs += [partial(_run, settings, name, data, reading, run) for reading in spec.readings for run in range(spec.runs)]  # fmt: skip
    try:
        results = list(tqdm(side_by_side(lambda job: job(), jobs, workers), "l2x", len(jobs), disable=None))
    except BlaError as error:
        raise BlaError(f"params.yaml: l2x: {error}") from error

    runs = pd.DataFrame([row for row, _ in results[first:]], columns=RUN)
    seed = derive_seed(settings.seed, "l2x")
    tests = differences(runs, settings.statistics.resamples, seed)
    order = {name: number for number, name in enumerate(spec.readings)}
    by_run = pd.DataFrame([row for rows in results[:first] for row in rows], columns=DIGIT_RUN)
    by_run = by_run.sort_values("reading", key=lambda names: names.map(order), kind="stable")
    by_data = means(by_run, ["data", *SETTING], DIGITS)
    by_data["paper_posthoc_accuracy"] = _paper() if settings.small_cnn.data == "mnist" else np.nan
    by_dataset = means(runs, ["dataset", *SETTING], MEASURES)
    tables = {"_runs": runs, "": by_dataset, "_tests": tests, "_digits_runs": by_run, "_digits": by_data}
    for name, table in tables.items():
        save_table(TABLES / f"l2x{name}.csv", table)
    with replacing(FIGURES / "l2x.png") as part:
        save_figure(picture(runs, _seen(datasets, settings, results[first:])), part, "png")
    for _, row in by_dataset.iterrows():
        print(f"{row['dataset']} {row['reading']}: accuracy soft {row['soft_accuracy']:.3f}, hard {row['hard_accuracy']:.3f}")  # fmt: skip
    for _, row in by_data.iterrows():
        print(f"{row['data']} {row['reading']}: post-hoc accuracy {row['posthoc_accuracy']:.3f}")


def _load(settings: Settings, dataset: str) -> Data:
    spec, entry = settings.l2x, settings.dataset[dataset]
    (features, labels), (test_features, test_labels) = (
        [part.to(choose_device()) for part in load_features(dataset, split)] for split in SPLITS
    )
    images, test_images = (load_tensor(IMAGES / dataset / f"{split}_images.npy") for split in SPLITS)
    rows, chosen = (
        spread_over_classes(of.cpu().numpy(), min(count, len(of)))
        for of, count in ((labels, spec.train_images), (test_labels, spec.test_images))
    )
    extractor = load_backbone(entry.backbone, BACKBONES / f"{dataset}.safetensors", images.shape[1])
    where, path, coverage = torch.from_numpy(chosen).to(features.device), IMAGES / dataset / "test_masks.npy", None
    if path.exists():
        grid = round(features.shape[2] ** 0.5)
        parts = torch.from_numpy(load_array(path)[chosen]).split(256)
        coverage = torch.cat([cell_means(part.double(), grid).flatten(1) for part in parts]).numpy()
    return Data(
        fold_batch_norm(extractor).to(features.device),
        images,
        features,
        labels,
        torch.from_numpy(rows),
        (test_images[torch.from_numpy(chosen)], test_features[where], test_labels[where]),
        coverage,
        len(images) + len(test_images) - len(rows) - len(chosen),
    )


def _run(settings: Settings, dataset: str, data: Data, name: str, run: int) -> tuple[Row, Seen | None]:
    """One run of a reading: its row, and of run 0 what the second network sees."""
    spec, reading = settings.l2x, settings.l2x.readings[name]
    schedule = Schedule(spec.batch_size, spec.epochs, spec.learning_rate, 0, spec.adam_epsilon)
    # The same random numbers under every reading, so that only the reading differs within a pair.
    seed = derive_seed(settings.seed, dataset, "l2x", run)
    extractor = copy.deepcopy(data.extractor)  # its stochastic depth is set from outside, in several threads
    sets = data.images, data.features, data.labels, data.rows
    trained = train(extractor, *sets, reading, spec.k, schedule, seed, run)
    images, _, labels = data.test
    size = batch_size_for(labels.device, images.shape[1])
    result = evaluate(extractor, *data.test, reading, spec.k, trained, derive_seed(seed, "evaluation"), size)
    row: Row = {
        "dataset": dataset,
        "reading": name,
        "temperature": reading.temperature,
        "background": reading.background,
    }
    row |= {"straight_through": reading.straight_through, "k": spec.k, "run": run, "seed": seed}
    row |= {"n_train_images": len(data.rows), "n_images": len(labels), "n_images_left_out": data.left_out}
    row |= {"n_classes": int(data.labels.max()) + 1}
    row |= {f"{what}_accuracy": correct.double().mean().item() for what, correct in result.correct.items()}
    row |= {"soft_brightness": result.soft.double().mean().item(), "chosen_brightness": result.chosen_brightness}
    row |= dict.fromkeys(("precision", "random_precision"), np.nan)
    if data.coverage is not None:
        for what, cells in (("precision", result.hard), ("random_precision", result.random)):
            row[what] = np.nanmean(overlap(cells.numpy(), data.coverage)[1])
    if run:
        return row, None
    some = torch.from_numpy(spread_over_classes(labels.cpu().numpy(), min(PICTURED, len(labels))))
    pixels = images[some].to(labels.device)
    soft, hard = (
        masked(extractor, pixels, mask[some].to(labels.device), reading).round().to(torch.uint8).cpu().numpy()
        for mask in (result.soft, result.hard)
    )
    return row, Seen(images[some].numpy(), {name: soft}, {name: hard})


def _seen(datasets: Sequence[str], settings: Settings, results: Sequence[tuple[Row, Seen | None]]) -> dict[str, Seen]:
    """What run 0 sees, by dataset, the readings together."""
    found: dict[str, Seen] = {}
    for row, part in results:
        if part is not None:
            before = found.get(str(row["dataset"]), Seen(part.images, {}, {}))
            merged = Seen(part.images, {**before.soft, **part.soft}, {**before.hard, **part.hard})
            found[str(row["dataset"])] = merged
    return found


def _digit_runs(settings: Settings, splits: Sequence[tuple[Tensor, Tensor]], runs: range) -> list[Row]:
    """Some runs on digits, all at once, under every reading that the paper may mean: a row each."""
    (images, labels), test = splits
    spec, name = settings.small_cnn, data_name(settings)
    k, epochs = settings.l2x.digits.k, settings.l2x.digits.epochs
    schedule = Schedule(spec.batch_size, spec.epochs, spec.learning_rate, 0, spec.adam_epsilon)
    as_long = Schedule(spec.batch_size, epochs, spec.learning_rate, 0, spec.adam_epsilon)
    # The models that are explained are the stage small_cnn's.
    own = [derive_seed(settings.seed, "small_cnn", spec.data, "flat", "bl", run) for run in runs]
    model = small_cnn.train(images, labels, "flat", None, own, schedule)
    seeds = [derive_seed(settings.seed, "l2x", spec.data, run) for run in runs]
    rows: list[Row] = []
    for key, reading in settings.l2x.readings.items():
        if not reading.published:
            continue
        trained = l2x_digits.train(images, model, reading, k, seeds, as_long)
        found = l2x_digits.evaluate(*test, model, *trained, reading, k, seeds)
        for place, run in enumerate(runs):
            row: Row = {"data": name, "reading": key, "temperature": reading.temperature, "k": k, "run": run}
            row |= {"seed": seeds[place], "n_train_images": len(labels), "n_images": len(test[1])}
            rows.append(row | {measure: values[place].item() for measure, values in found.items()})
    return rows


def _paper() -> float:
    """The published post-hoc accuracy on MNIST."""
    published = pd.read_csv(PUBLISHED).query("dataset == 'mnist_3_vs_8' and method == 'L2X' and quantity == 'accuracy'")
    return float(published["value"].item())


if __name__ == "__main__":
    run_stage(main)
