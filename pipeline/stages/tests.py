"""Stage `tests`: all runs, and every paired comparison of Table 1's columns, in reports/tables/."""

import pandas as pd

from bla.experiments.table1.tests import column_tests, with_holm
from pipeline.artifacts.evaluation import load_columns, load_runs
from pipeline.artifacts.tables import TABLES, save_table
from pipeline.run.entries import dataset_departures
from pipeline.run.settings import load_settings


def main() -> None:
    """Write runs.csv and tests.csv."""
    settings = load_settings()
    keys = ["bl", *settings.variants, "bl_plus"]
    save_table(TABLES / "runs.csv", pd.concat([load_runs(dataset, keys) for dataset in settings.datasets]))
    tables = []
    for dataset in settings.datasets:
        kind, columns = settings.dataset[dataset].images.kind, load_columns(dataset, keys)
        tables.append(column_tests(dataset, kind, dataset_departures(settings, dataset), columns))
    save_table(TABLES / "tests.csv", with_holm(pd.concat(tables)))
