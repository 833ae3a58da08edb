"""Tables in reports/tables/, as CSV."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from bla.base.atomic import replacing
from bla.base.errors import BlaError

TABLES = Path("reports/tables")
PUBLISHED = Path("data/published_values.csv")
"""The paper's numbers."""


def load_table(path: Path, **options: Any) -> pd.DataFrame:
    """Read a CSV (`options` are for `pandas.read_csv`); BlaError if it is damaged."""
    try:
        table: pd.DataFrame = pd.read_csv(path, **options)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise BlaError(f"{path}: damaged ({error}); delete it and run make repro") from error
    return table


def save_table(path: Path, table: pd.DataFrame, floats: str | None = "%.6g") -> None:
    """Write a table as CSV; floats have six digits, or all with `floats=None`."""
    with replacing(path) as part:
        table.to_csv(part, index=False, float_format=floats, lineterminator="\n")


def save_tables(name: str, tables: Mapping[str, pd.DataFrame]) -> None:
    """Write an experiment's tables, by file suffix: `_runs` (a row per run), `` (means), `_tests`."""
    for ending, table in tables.items():
        save_table(TABLES / f"{name}{ending}.csv", table)
