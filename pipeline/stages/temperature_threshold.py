"""Stage `temperature_threshold`: BLA-T at other temperatures and thresholds, in reports/tables/ and a figure."""

from functools import partial
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from bla.base.errors import BlaError
from bla.base.paper import VARIANTS
from bla.base.specs import BoundedLogits
from bla.experiments.runs import one_table
from bla.experiments.temperature_threshold.experiment import RUN, grid, measure
from bla.experiments.temperature_threshold.figures import heat_maps
from bla.experiments.temperature_threshold.tables import differences, summary
from bla.method.modules import Head
from bla.runtime.cache import cache_key, cached_table, content_hash, is_cached
from bla.runtime.seeds import derive_seed
from pipeline.artifacts.coverage import load_coverage
from pipeline.artifacts.features import feature_files, load_features, load_grid
from pipeline.artifacts.figures import FIGURES, save_picture
from pipeline.artifacts.images import prepared_files
from pipeline.artifacts.models import HEADS, starting_heads
from pipeline.artifacts.tables import save_tables
from pipeline.run.entries import running
from pipeline.run.environment import WORK, choose_device
from pipeline.run.settings import Settings, load_settings

TOGETHER = 20
"""Largest number of settings that train together."""


def main() -> None:
    """Write temperature_threshold_runs.csv, temperature_threshold.csv (means), _tests.csv and a figure."""
    settings = load_settings()
    runs = one_table([_measure(settings, name) for name in running(settings, "temperature_threshold")], RUN)
    means, reference = summary(runs), VARIANTS["bla_t"]
    assert isinstance(reference, BoundedLogits)
    save_tables("temperature_threshold", {"_runs": runs, "": means, "_tests": differences(runs, reference)})
    save_picture(FIGURES / "temperature_threshold.png", heat_maps(means))
    print(f"temperature_threshold: {len(means)} settings, {(runs['died'] != '').sum()} of {len(runs)} runs died")


def _measure(settings: Settings, dataset: str) -> pd.DataFrame:
    """All settings on a dataset: a row per run. Finished sweeps are cached, so that a kill loses at most one sweep."""
    spec, schedule, device = settings.temperature_threshold, settings.dataset[dataset].training, choose_device()
    train, test = load_features(dataset, "train", device), load_features(dataset, "test", device)
    heads, runs = starting_heads(dataset, settings.runs), min(spec.runs, settings.runs)
    head = Head(heads.weight[:runs], heads.bias[:runs])
    # The same random numbers for all settings, so that pairs differ only in the setting.
    seeds = [derive_seed(settings.seed, dataset, "sensitivity", run) for run in range(runs)]
    coverage = load_coverage(dataset, "test", load_grid(dataset))
    data = [content_hash(path) for path in (*feature_files(dataset), *prepared_files(dataset), HEADS / f"{dataset}.safetensors")]  # fmt: skip

    def entry(variant: BoundedLogits) -> tuple[Path, str, str]:
        name = f"temperature_threshold-{dataset}-{variant.threshold_rule}-{variant.temperature}-{variant.threshold_factor}"  # fmt: skip
        return WORK, name, cache_key([Path(__file__)], [variant, seeds, schedule, str(device), data], [])

    def work(sweep: list[BoundedLogits]) -> list[pd.DataFrame]:
        try:
            tables = measure(train, test, coverage, sweep, head, seeds, schedule)
        except BlaError as error:
            raise BlaError(f"params.yaml: temperature_threshold: {dataset}: {error}") from error
        return [table.assign(dataset=dataset)[RUN] for table in tables]

    variants = grid(spec.temperatures, spec.threshold_factors, spec.threshold_rules)
    waiting = [variant for variant in variants if not is_cached(*entry(variant))]
    with tqdm(total=len(waiting), desc=f"{dataset} temperature_threshold", unit="setting", disable=None) as bar:
        for start in range(0, len(waiting), TOGETHER):
            sweep = waiting[start : start + TOGETHER]
            for variant, table in zip(sweep, work(sweep), strict=True):
                cached_table(*entry(variant), partial(pd.DataFrame, table))
            bar.update(len(sweep))
    return pd.concat([cached_table(*entry(variant), lambda v=variant: work([v])[0]) for variant in variants])  # type: ignore[misc]
