"""Stage `tables`: Table 1 as CSV and Markdown in reports/tables/, and the metrics that DVC compares."""

import json

import pandas as pd

from bla.experiments.table1.tables import markdown, table_one
from pipeline.artifacts.files import save_table, save_text
from pipeline.artifacts.paths import PUBLISHED, REPORTS, TABLES
from pipeline.run.settings import load_settings
from pipeline.run.stage import run_stage


def main() -> None:
    """Write table1.csv, table1.md and reports/metrics.json (dataset.variant: accuracy, loss, explanation_size)."""
    settings = load_settings()
    runs, tests = pd.read_csv(TABLES / "runs.csv"), pd.read_csv(TABLES / "tests.csv")
    kinds = {name: settings.dataset[name].images.kind for name in settings.datasets}
    alpha = settings.statistics.alpha
    table = table_one(runs, tests, kinds, pd.read_csv(PUBLISHED), alpha)
    save_table(TABLES / "table1.csv", table, floats=None)
    save_text(TABLES / "table1.md", markdown(table, alpha))
    metrics: dict[str, dict[str, dict[str, float]]] = {}
    for row in table.to_dict("records"):
        metrics.setdefault(row["dataset"], {}).setdefault(row["variant"], {})[row["measure"]] = round(row["mean"], 6)
    save_text(REPORTS / "metrics.json", json.dumps(metrics, indent=2) + "\n")


if __name__ == "__main__":
    run_stage(main)
