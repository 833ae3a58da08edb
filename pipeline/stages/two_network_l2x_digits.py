"""Stage `two_network_l2x_digits`: section 4.1, L2X with two networks on 3 and 8, in reports/tables/."""

from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from bla.base.errors import BlaError
from bla.base.paper import L2X_DIGITS_K, l2x_reading_departures
from bla.datasets import SPLITS
from bla.experiments.runs import means
from bla.experiments.two_network_l2x.digits import Runs, published, train_and_evaluate
from bla.experiments.two_network_l2x.tables import DIGIT_MEASURES, DIGIT_RUN, SETTING, published_posthoc_accuracy
from bla.runtime.seeds import derive_seed
from bla.runtime.threads import side_by_side
from pipeline.artifacts.digits import digits_name, load_digits
from pipeline.artifacts.tables import PUBLISHED, load_table, save_tables
from pipeline.run.environment import choose_device
from pipeline.run.settings import load_settings


def main() -> None:
    """Write two_network_l2x_digits_runs.csv and two_network_l2x_digits.csv (means)."""
    settings, device = load_settings(), choose_device()
    spec, small = settings.two_network_l2x, settings.small_cnn
    schedules = small.training, replace(small.training, epochs=spec.digits.epochs)
    readings = {name: reading for name, reading in spec.readings.items() if published(reading)}
    train, test = (load_digits(settings, split, device) for split in SPLITS)
    # Networks this small gain nothing from several threads: on a CPU one run per thread.
    size, workers = (1, torch.get_num_threads()) if device.type == "cpu" else (spec.digits.runs, 1)
    jobs = []
    for start in range(0, spec.digits.runs, size):
        runs = range(start, min(start + size, spec.digits.runs))
        # The explained models are those of the stage small_cnn.
        model_seeds = [derive_seed(settings.seed, "small_cnn", small.data, "flat", "bl", run) for run in runs]
        jobs.append(Runs(start, model_seeds, [derive_seed(settings.seed, "l2x", small.data, run) for run in runs]))

    def work(runs: Runs) -> list[dict[str, object]]:
        return train_and_evaluate(train, test, readings, spec.digits.k, runs, *schedules)

    try:
        results = list(tqdm(side_by_side(work, jobs, workers), "L2X on digits", len(jobs), disable=None))
    except BlaError as error:
        raise BlaError(f"params.yaml: two_network_l2x: {error}") from error
    table = pd.DataFrame([row for rows in results for row in rows]).assign(data=digits_name(settings))[DIGIT_RUN]
    order = {name: place for place, name in enumerate(spec.readings)}
    table = table.sort_values("reading", key=lambda names: names.map(order), kind="stable")
    by_data = means(table, ["data", *SETTING], DIGIT_MEASURES)
    agrees = digits_name(settings) == "mnist_3_vs_8" and spec.digits.k == L2X_DIGITS_K
    paper = published_posthoc_accuracy(load_table(PUBLISHED)) if agrees else np.nan
    possible = [not l2x_reading_departures(readings[str(name)].temperature) for name in by_data["reading"]]
    by_data["paper_posthoc_accuracy"] = np.where(possible, paper, np.nan)
    save_tables("two_network_l2x_digits", {"_runs": table, "": by_data})
    for row in by_data.to_dict("records"):
        print(f"{row['data']} {row['reading']}: post-hoc accuracy {row['posthoc_accuracy']:.3f}")
