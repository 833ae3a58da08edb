"""Tables as CSV: in reports/tables/, and the classes in data/images/."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from bla.base.atomic import replacing
from bla.base.errors import BlaError
from bla.base.spreadsheet import FORMULA

TABLES = Path("reports/tables")
PUBLISHED = Path("data/published_values.csv")
"""The paper's numbers."""


def load_table(path: Path, **options: Any) -> pd.DataFrame:
    """Read a CSV (`options` are for `pandas.read_csv`); BlaError if it is damaged."""
    try:
        table: pd.DataFrame = pd.read_csv(path, lineterminator="\n", **options)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise BlaError(f"{path}: damaged ({error}); delete it and run make repro") from error
    for name in table.select_dtypes(["object", "str"]):
        table[name] = table[name].map(_as_it_was)
    return table


def untrained_methods() -> set[tuple[str, str]]:
    """The learned methods that are not better than a constant mask, as pairs of dataset and method."""
    objectives = load_table(TABLES / "faithfulness_objectives.csv")
    return set(objectives.loc[~objectives["trained"], ["dataset", "method"]].itertuples(index=False, name=None))


def load_classes(dataset: str) -> list[str]:
    """The classes of a dataset's images by label."""
    names = load_table(Path("data/images") / dataset / "classes.csv", dtype=str, keep_default_na=False)["name"]
    return [str(name) for name in names]


def save_table(path: Path, table: pd.DataFrame, floats: str | None = "%.6g") -> None:
    """Write a table as CSV; floats have six digits, or all with `floats=None`.

    A text that a spreadsheet would run as a formula gets an apostrophe in front, which `load_table` removes.
    """
    texts = {str(name): table[name].map(_as_text) for name in table.select_dtypes(["object", "str"])}
    with replacing(path) as part:
        table.assign(**texts).to_csv(part, index=False, float_format=floats, lineterminator="\n")


def _as_text(value: Any) -> Any:
    """A text that begins like a formula, with an apostrophe in front; numbers and other values as they are."""
    return f"'{value}" if isinstance(value, str) and _is_formula(value.lstrip("'")) else value


def _as_it_was(value: Any) -> Any:
    """The value before `_as_text`."""
    formula = isinstance(value, str) and value.startswith("'") and _is_formula(value.lstrip("'"))
    return value[1:] if formula else value


def _is_formula(text: str) -> bool:
    """Whether a spreadsheet would run it: it begins like a formula, and is no number."""
    return text[:1] in FORMULA and not re.fullmatch(r"[+-][\d.]+(e[+-]?\d+)?", text)


def save_tables(name: str, tables: Mapping[str, pd.DataFrame]) -> None:
    """Write an experiment's tables, by file suffix: `_runs` (a row per run), `` (means), `_tests`."""
    for ending, table in tables.items():
        save_table(TABLES / f"{name}{ending}.csv", table)
