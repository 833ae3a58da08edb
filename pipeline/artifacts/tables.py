"""Tables in reports/tables/, as CSV."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from bla.base.atomic import replacing

TABLES = Path("reports/tables")
PUBLISHED = Path("data/published_values.csv")
"""The paper's numbers."""


def save_table(path: Path, table: pd.DataFrame, floats: str | None = "%.6g") -> None:
    """Write a table as CSV; floats keep six digits, or all with `floats=None`, where a page is made of the CSV."""
    with replacing(path) as part:
        table.to_csv(part, index=False, float_format=floats, lineterminator="\n")


def save_tables(name: str, tables: Mapping[str, pd.DataFrame]) -> None:
    """Write an experiment's tables, by ending: `_runs` (a row a run), `` (means), `_tests`."""
    for ending, table in tables.items():
        save_table(TABLES / f"{name}{ending}.csv", table)
