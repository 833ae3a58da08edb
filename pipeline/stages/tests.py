"""Stage `tests`: all runs, and every paired comparison of Table 1's columns, in reports/tables/."""

import pandas as pd

from bla.base.paper import departures
from bla.experiments.table1.tests import column_tests, with_holm
from pipeline.artifacts.evaluation import load_column, load_runs
from pipeline.artifacts.tables import TABLES, save_table
from pipeline.run.settings import load_settings


def main() -> None:
    """Write runs.csv and tests.csv."""
    settings = load_settings()
    keys, level = ["bl", *settings.variants, "bl_plus"], settings.statistics.alpha
    save_table(TABLES / "runs.csv", pd.concat([load_runs(dataset, keys) for dataset in settings.datasets]))
    tables = []
    for dataset in settings.datasets:
        entry, columns = settings.dataset[dataset], {key: load_column(dataset, key) for key in keys}
        dataset_departures = departures(entry.images, entry.backbone, entry.training, settings.runs, level)
        tables.append(column_tests(dataset, entry.images.kind, dataset_departures, columns))
    save_table(TABLES / "tests.csv", with_holm(pd.concat(tables)))
