"""Stage `table1`: Table 1 as CSV and Markdown, Figure 3, and the metrics that DVC compares."""

import json

from bla.base.atomic import save_text
from bla.base.paper import variant_departures
from bla.experiments.table1.figures import figure_three, table_one_chart
from bla.experiments.table1.tables import markdown, table_one
from pipeline.artifacts.figures import FIGURES, save_picture
from pipeline.artifacts.tables import PUBLISHED, TABLES, load_table, save_table
from pipeline.run.entries import dataset_departures
from pipeline.run.settings import METRICS, load_settings


def main() -> None:
    """Write table1.csv, .md and .png, figure3.svg and .png, and metrics.json (three measures per dataset and variant)."""
    settings = load_settings()
    runs, tests = load_table(TABLES / "runs.csv"), load_table(TABLES / "tests.csv")
    kinds, alpha = {name: settings.dataset[name].images.kind for name in settings.datasets}, settings.statistics.alpha
    departing = {name: dataset_departures(settings, name) for name in settings.datasets}
    of_variants = variant_departures(settings.variant)
    table = table_one(runs, tests, kinds, load_table(PUBLISHED), alpha, departing, of_variants)
    save_table(TABLES / "table1.csv", table, floats=None)
    save_text(TABLES / "table1.md", markdown(table, alpha))
    for kind in ("svg", "png"):
        save_picture(FIGURES / f"figure3.{kind}", figure_three(runs))
    save_picture(FIGURES / "table1.png", table_one_chart(table))
    metrics: dict[str, dict[str, dict[str, float]]] = {}
    for row in table.to_dict("records"):
        metrics.setdefault(row["dataset"], {}).setdefault(row["variant"], {})[row["measure"]] = round(row["mean"], 6)
    save_text(METRICS, json.dumps(metrics, indent=2) + "\n")
