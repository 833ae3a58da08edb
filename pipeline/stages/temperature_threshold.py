"""Stage `sensitivity`: BLA-T at other temperatures and thresholds, in reports/tables/ and a figure."""

import hashlib
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from bla.base.errors import BlaError
from bla.base.paper import VARIANTS
from bla.base.specs import BoundedLogits
from bla.experiments.temperature_threshold import experiment as sensitivity
from bla.experiments.temperature_threshold.experiment import MEASURES, SETTING, differences, grid, measure, summary
from bla.experiments.temperature_threshold.figures import heat_maps
from bla.method import equations as selection
from bla.method import modules as models
from bla.method import training
from bla.method.modules import Head
from bla.networks.patches import cell_means
from bla.plotting.figures import save_figure
from bla.runtime.seeds import derive_seed
from pipeline.artifacts.files import content_key, load_tensor, replacing, save_table
from pipeline.artifacts.paths import FEATURES, FIGURES, HEADS, IMAGES, TABLES
from pipeline.artifacts.runs import load_features, load_head
from pipeline.run.settings import Settings, load_settings
from pipeline.run.stage import WORK, choose_device, run_stage

TOGETHER = 20
"""Settings that train together at most."""
RUN = ["dataset", *SETTING, "run", "n_images", *MEASURES, "share_at_bound", "share_without_weight", "died"]


def main() -> None:
    """Write sensitivity_runs.csv, sensitivity.csv (means), sensitivity_tests.csv and figures/sensitivity.png."""
    settings = load_settings()
    spec = settings.sensitivity
    datasets = [name for name in spec.datasets if name in settings.datasets]
    if not datasets:
        print("sensitivity: none of sensitivity.datasets is among the datasets that run, so there is nothing to try")
    tables = [_measure(settings, name) for name in datasets]
    runs = pd.concat(tables) if tables else pd.DataFrame(columns=RUN)
    table_one = VARIANTS["bla_t"]
    assert isinstance(table_one, BoundedLogits)
    seed = derive_seed(settings.seed, "sensitivity")
    means, against = summary(runs), differences(runs, table_one, settings.statistics.resamples, seed)
    for name, table in (("_runs", runs[RUN]), ("", means), ("_tests", against)):
        save_table(TABLES / f"sensitivity{name}.csv", table)
    with replacing(FIGURES / "sensitivity.png") as part:
        save_figure(heat_maps(means), part, "png")
    print(f"sensitivity: {len(means)} settings, {(runs['died'] != '').sum()} of {len(runs)} runs died")


def _measure(settings: Settings, dataset: str) -> pd.DataFrame:
    """All settings on a dataset: a row a run. Those that are done are kept in .work, so that a kill loses one sweep."""
    spec, schedule = settings.sensitivity, settings.dataset[dataset].training
    (features, labels), test = ([part.to(choose_device()) for part in load_features(dataset, split)] for split in ("train", "test"))  # fmt: skip
    whole = load_head(HEADS / f"{dataset}.safetensors")
    runs = min(spec.runs, settings.runs)
    head = Head(whole.weight[:runs], whole.bias[:runs])
    # The same random numbers for every setting, so that only the setting differs within a pair.
    seeds = [derive_seed(settings.seed, dataset, "sensitivity", run) for run in range(runs)]
    told: list[object] = [hashlib.sha256((HEADS / f"{dataset}.safetensors").read_bytes()).hexdigest(), seeds]
    told += [(FEATURES / dataset / f"{split}_features.npy").stat().st_mtime_ns for split in ("train", "test")]
    told += [asdict(schedule), str(choose_device()), torch.__version__]
    told += [Path(module.__file__ or "").read_text() for module in (models, selection, sensitivity, training)]
    coverage = _coverage(dataset, test[0].shape[1])
    variants = grid(spec.temperatures, spec.threshold_factors, spec.threshold_rules)
    kept = {variant: WORK / f"sensitivity-{content_key([*told, asdict(variant)])}.csv" for variant in variants}
    waiting = [variant for variant in variants if not kept[variant].exists()]
    with tqdm(total=len(waiting), desc=f"{dataset} sensitivity", unit="setting", disable=None) as bar:
        for start in range(0, len(waiting), TOGETHER):
            sweep = waiting[start : start + TOGETHER]
            try:
                tables = measure(features, labels, test[0], test[1], coverage, sweep, head, seeds, schedule)
            except BlaError as error:
                raise BlaError(f"params.yaml: sensitivity: {dataset}: {error}") from error
            for variant, table in zip(sweep, tables, strict=True):
                with replacing(kept[variant]) as part:
                    table.assign(dataset=dataset)[RUN].to_csv(part, index=False)
            bar.update(len(sweep))
    empty = {name: [""] for name in MEASURES}
    return pd.concat([pd.read_csv(path, keep_default_na=False, na_values=empty) for path in kept.values()])


def _coverage(dataset: str, cells: int) -> NDArray[np.float64] | None:
    """The share `[M, n]` of each cell that the object covers, or None where there are no masks."""
    path = IMAGES / dataset / "test_masks.npy"
    if not path.exists():
        return None
    parts = load_tensor(path).split(256)
    covered: NDArray[np.float64] = torch.cat([cell_means(part.double(), round(cells**0.5)).flatten(1) for part in parts]).numpy()  # fmt: skip
    return covered


if __name__ == "__main__":
    run_stage(main)
