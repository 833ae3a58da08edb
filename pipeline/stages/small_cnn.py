"""Stage `small_cnn`: section 4.1, a small network trained whole with and without BLA-T, in reports/tables/ and a figure."""

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from bla.base.errors import BlaError
from bla.base.specs import BoundedLogits, Mnist, Schedule
from bla.datasets import SPLITS, SplitName, mnist, moved_digits, spread_over_classes
from bla.experiments.small_cnn.tables import differences, picture, run_table, summary
from bla.method.modules import Evaluation
from bla.networks.small_cnn import SIDE, Pooling, evaluate, train
from bla.plotting.figures import save_figure
from bla.runtime.seeds import derive_seed
from bla.runtime.threads import side_by_side
from pipeline.artifacts.files import replacing, save_table
from pipeline.artifacts.paths import FIGURES, PUBLISHED, TABLES
from pipeline.run.settings import Settings, load_settings
from pipeline.run.stage import choose_device, data_path, run_stage

POOLINGS: tuple[Pooling, Pooling] = ("mean", "flat")
TEST_SHARE = 0.2
FRONT = ["data", "pooling", "column", "run", "seed", "n_train_images"]


def main() -> None:
    """Write small_cnn_runs.csv, small_cnn.csv (means), small_cnn_tests.csv and figures/small_cnn.png."""
    settings = load_settings()
    spec, device = settings.small_cnn, choose_device()
    variant = BoundedLogits("bounded_logits", "trained", spec.temperature, spec.threshold_factor, spec.threshold_rule)
    schedule = Schedule(spec.batch_size, spec.epochs, spec.learning_rate, 0, spec.adam_epsilon)
    (images, labels), (test_images, test_labels) = (load_split(settings, split, device) for split in SPLITS)
    # Small convolutions gain nothing from threads, nor from runs side by side: a CPU trains one run in each thread.
    size, workers = (1, torch.get_num_threads()) if device.type == "cpu" else (spec.runs, 1)
    columns = [(pooling, column) for pooling in POOLINGS for column in ("bl", "bla_t")]
    seeds = {(pooling, column): [derive_seed(settings.seed, "small_cnn", spec.data, pooling, column, run) for run in range(spec.runs)] for pooling, column in columns}  # fmt: skip
    jobs = [(*key, start) for key in columns for start in range(0, spec.runs, size)]

    def work(job: tuple[Pooling, str, int]) -> Evaluation:
        pooling, column, start = job
        own = None if column == "bl" else variant
        network = train(images, labels, pooling, own, seeds[pooling, column][start : start + size], schedule)
        return evaluate(test_images, test_labels, pooling, own, network)

    try:
        results = list(tqdm(side_by_side(work, jobs, workers), "small_cnn", len(jobs), disable=None))
    except BlaError as error:
        raise BlaError(f"params.yaml: small_cnn: {error}") from error
    tables = []
    for (pooling, column, start), result in zip(jobs, results, strict=True):
        rows = run_table(result).assign(data=data_name(settings), pooling=pooling, column=column)
        rows["run"] = rows.index + start
        rows["seed"] = seeds[pooling, column][start : start + size]
        tables.append(rows.assign(n_train_images=len(labels)))
    runs = pd.concat(tables)
    runs = runs[[*FRONT, *(name for name in runs if name not in FRONT)]]
    by_column = summary(runs, _paper() if spec.data == "mnist" else {})
    tests = differences(runs, settings.statistics.resamples, derive_seed(settings.seed, "small_cnn"))
    for name, table in (("_runs", runs), ("", by_column), ("_tests", tests)):
        save_table(TABLES / f"small_cnn{name}.csv", table)

    shown = spread_over_classes(test_labels.cpu().numpy(), 10)
    hard: dict[str, NDArray[np.float64]] = {}
    for (pooling, column, start), result in zip(jobs, results, strict=True):
        if column == "bla_t" and start == 0:
            assert result.explained is not None
            side = round(result.explained.hard.shape[2] ** 0.5)
            hard[pooling] = result.explained.hard[0, shown].view(-1, side, side).double().numpy()
    pixels = np.repeat((test_images.cpu().numpy()[shown] * 255).round().astype(np.uint8)[..., None], 3, axis=3)
    with replacing(FIGURES / "small_cnn.png") as part:
        save_figure(picture(runs, pixels, hard), part, "png")
    for _, row in by_column.iterrows():
        print(
            f"{row['data']} {row['pooling']} {row['column']}: accuracy {row['accuracy']:.4f} (n = {row['n_runs']} runs)"
        )


def data_name(settings: Settings) -> str:
    """What the tables call the digits, such as mnist_3_vs_8."""
    return f"{settings.small_cnn.data}_{'_vs_'.join(map(str, settings.small_cnn.classes))}"


def load_split(settings: Settings, split: SplitName, device: torch.device) -> tuple[Tensor, Tensor]:
    """Images `[N, 28, 28]` in [0, 1], and labels 0 and 1."""
    spec = settings.small_cnn
    if spec.data == "mnist":
        found = mnist.load(Mnist("mnist", spec.classes, SIDE), data_path("mnist"), split)
        images, labels = found.images[..., 0], found.labels
    else:
        test = round(TEST_SHARE * spec.images)
        count = test if split == "test" else spec.images - test
        images, labels = moved_digits.generate(spec.classes, count, split, settings.seed)
    return torch.from_numpy(images).to(device).float() / 255, torch.from_numpy(labels).to(device)


def _paper() -> dict[str, float]:
    """The published accuracies by column."""
    published = pd.read_csv(PUBLISHED).query("dataset == 'mnist_3_vs_8' and quantity == 'accuracy'").set_index("method")
    values = dict(zip(published.index, published["value"].to_numpy(float), strict=True))
    return {"bl": values["BL"], "bla_t": values["BLA-T"]}


if __name__ == "__main__":
    run_stage(main)
