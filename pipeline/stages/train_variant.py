"""Stage `train_variant@DATASET-VARIANT`: one column of Table 1, modules and heads, in models/learned/."""

import time

from tqdm import tqdm

from bla.base.errors import BlaError
from bla.base.specs import L2XF
from bla.experiments.table1.experiment import train_column
from bla.runtime.seeds import derive_seed
from pipeline.artifacts.evaluation import save_results
from pipeline.artifacts.features import load_features
from pipeline.artifacts.maps import save_training_seconds
from pipeline.artifacts.models import save_trained, starting_heads
from pipeline.run.environment import choose_device
from pipeline.run.settings import load_settings


def main(dataset: str, variant: str) -> None:
    """Train run r of the variant from head r of the baseline, and evaluate it.

    The seconds of both go to data/seconds/, because everything else is the same in every run.
    """
    settings, device = load_settings(), choose_device()
    spec, schedule = settings.variant[variant], settings.dataset[dataset].training
    train, test = load_features(dataset, "train"), load_features(dataset, "test")
    if isinstance(spec, L2XF) and spec.k > train[0].shape[2]:
        raise BlaError(f"params.yaml: variant.{variant}.k: {spec.k} cells cannot be chosen from {train[0].shape[2]}")
    head = starting_heads(dataset, settings.runs)
    seeds = [derive_seed(settings.seed, dataset, variant, run) for run in range(settings.runs)]
    with tqdm(total=settings.runs, desc=f"{dataset} {variant}", unit="run", disable=None) as bar:
        try:
            start, before = (head, seeds, schedule, schedule.epochs), time.perf_counter()
            trained, result = train_column(train, test, spec, *start, device, bar.update)
        except BlaError as error:
            raise BlaError(f"params.yaml: dataset.{dataset}: {variant}: {error}") from error
    save_training_seconds(dataset, variant, time.perf_counter() - before, settings.runs)
    save_trained(dataset, variant, trained)
    save_results(dataset, variant, spec, seeds, trained, result)
