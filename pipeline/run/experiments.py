"""Experiments of `dvc exp show --json` as tables for a terminal and, for a sweep, as table and figure.

dvc exp show --json | python -m pipeline.run.experiments            # make compare
dvc exp show --json | python -m pipeline.run.experiments sweep      # the last step of make sweep
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from bla.base.atomic import replacing, save_text
from bla.base.errors import BlaError
from bla.base.paper import COLUMNS
from bla.plotting.style import save_figure
from bla.plotting.sweep import sweep_figure
from pipeline.artifacts.tables import save_table
from pipeline.run.stage import run_stage

SWEEP = Path("sweep")
WIDTH = 100
"""Characters of a line."""
MOST_BESIDE = 3
"""Changed settings that each table of a measure repeats, at most."""
MEASURES = {"accuracy": "{:.4f}", "loss": "{:.4f}", "explanation_size": "{:.2f}"}


@dataclass(frozen=True)
class Experiment:
    """Settings by full name, and metrics by (dataset, column, measure)."""

    name: str
    settings: Mapping[str, Any]
    metrics: Mapping[tuple[str, str, str], float]


def main(what: str = "compare") -> None:
    """Print the experiments of the JSON on the standard input; `sweep` also writes the table and figure of a sweep."""
    found = read_experiments(sys.stdin.read())
    if what == "sweep":
        swept = [experiment for experiment in found[1:] if experiment.name.startswith("sweep-")]
        if not swept:
            raise BlaError(
                "the last commit has no experiment of a sweep, and experiments belong to the commit that they started from; "
                "run make sweep, and do not commit before it ends"
            )
        found = [found[0], *sorted(swept, key=lambda experiment: experiment.name)]
    print(comparison(found))
    if what == "sweep":
        table = sweep_table(found)
        save_table(SWEEP / "sweep.csv", table)
        save_text(SWEEP / "sweep.txt", comparison(found) + "\n")
        with replacing(SWEEP / "sweep.png") as part:
            save_figure(sweep_figure(table), part, "png")
        print(f"written: {', '.join(str(SWEEP / f'sweep.{ending}') for ending in ('csv', 'txt', 'png'))}")


def read_experiments(text: str) -> list[Experiment]:
    """The workspace, the last commit, and the experiments since; those that run or failed are left out."""
    try:
        states = json.loads(text)
    except ValueError as error:
        raise BlaError("dvc exp show --json gave no JSON; run it alone and read its message") from error
    found = []
    for state in states:
        ended = [e for e in state["experiments"] or [] if (e["executor"] or {}).get("state") in (None, "success")]
        revisions = [state, *(e["revs"][0] for e in ended if e["revs"])]
        for place, revision in enumerate(revisions):
            if not revision.get("data"):
                continue
            name = (revision["name"] if place else f"commit ({revision['name']})") if revision["name"] else "workspace"
            params, metrics = (_contents(revision["data"][kind]) for kind in ("params", "metrics"))
            of_column = {tuple(key.split(".")): value for key, value in _flat(metrics).items() if key.count(".") == 2}
            found.append(Experiment(name, _flat(params), of_column))  # type: ignore[arg-type]
    if len(found) > 1 and (found[0].settings, found[0].metrics) == (found[1].settings, found[1].metrics):
        del found[0]  # the workspace, which is as committed
    if not found:
        raise BlaError("there are no results yet; run make repro first")
    return found


def comparison(found: Sequence[Experiment]) -> str:
    """Tables of at most 100 characters a line: the changed settings first, then one measure of each column.

    Columns of Table 1 without any difference between the experiments are left out.
    """
    changed, names = changed_settings(found), [experiment.name for experiment in found]
    short = _short_names(changed)
    settings = {short[key]: [_shown(e.settings.get(key)) for e in found] for key in changed}
    lines = ["changed settings", *_table(names, settings), ""] if changed else []
    lines += [f"{short[key]} is {key}" for key in changed if short[key] != key]
    keys = list(dict.fromkeys(key for experiment in found for key in experiment.metrics))
    differ = [k for k in keys if len({e.metrics.get(k) for e in found}) > 1]
    beside = settings if len(settings) <= MOST_BESIDE else {}
    for dataset, measure in dict.fromkeys((dataset, measure) for dataset, _, measure in differ):
        form, title = MEASURES.get(measure, "{}"), f"{measure.replace('_', ' ')} on {dataset}"
        columns = [column for d, column, m in differ if (d, m) == (dataset, measure)]
        cells = {COLUMNS.get(c, c): [_number(e.metrics.get((dataset, c, measure)), form) for e in found] for c in columns}  # fmt: skip
        lines += ["", title, *_table(names, {**beside, **cells})]
    if not differ:
        lines += ["", f"no metric differs between {', '.join(names)}"]
    return "\n".join(lines).lstrip("\n")


def changed_settings(found: Sequence[Experiment]) -> list[str]:
    """The settings, by full name, in which the experiments differ."""
    names = dict.fromkeys(name for experiment in found for name in experiment.settings)
    return [name for name in names if len({json.dumps(e.settings.get(name)) for e in found}) > 1]


def sweep_table(found: Sequence[Experiment]) -> pd.DataFrame:
    """A row per experiment, dataset and measure of BLA-T: temperature, threshold factor, value; equal settings once."""
    rows = []
    for experiment in found:
        temperature, factor = (experiment.settings.get(f"variant.bla_t.{name}") for name in ("temperature", "threshold_factor"))  # fmt: skip
        for (dataset, column, measure), value in experiment.metrics.items():
            if column == "bla_t":
                rows.append({"experiment": experiment.name, "dataset": dataset, "temperature": temperature, "threshold_factor": factor, "measure": measure, "value": value})  # fmt: skip
    if not rows:
        raise BlaError("no experiment has results of bla_t; add it to `variants` in params.yaml and run make sweep")
    table = pd.DataFrame(rows).drop_duplicates(["dataset", "temperature", "threshold_factor", "measure"])
    return table.sort_values(["dataset", "measure", "threshold_factor", "temperature"], ignore_index=True)


def _contents(files: Mapping[str, Any]) -> dict[str, Any]:
    """What all files of an experiment hold; a file that could not be read has none."""
    return {name: value for file in files.values() for name, value in (file.get("data") or {}).items()}


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted name; lists are values."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        nested = isinstance(value, dict) and value
        flat |= _flat(value, f"{prefix}{name}.") if nested else {f"{prefix}{name}": value}
    return flat


def _short_names(names: Sequence[str]) -> dict[str, str]:
    """The last words of dotted names, as many as tell them apart."""
    short = {}
    for name in names:
        words = name.split(".")
        ends = [".".join(words[-count:]) for count in range(1, len(words) + 1)]
        short[name] = next(e for e in ends if sum(n == e or n.endswith(f".{e}") for n in names) == 1 or e == name)
    return short


def _shown(value: Any) -> str:
    """A setting in at most 20 characters; empty if the experiment lacks it."""
    text = "" if value is None else ",".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 20 else f"{text[:19]}…"


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else form.format(value)


def _table(names: Sequence[str], columns: Mapping[str, Sequence[str]]) -> list[str]:
    """Lines of a table of the experiments `names`; columns that do not fit follow below, beside the names again."""
    blocks: list[dict[str, Sequence[str]]] = []
    left = 0
    for title, cells in columns.items():
        width = max(len(title), *map(len, cells)) + 2
        if left < width:
            blocks.append({"experiment": names})
            left = WIDTH - max(map(len, ["experiment", *names]))
        blocks[-1][title] = cells
        left -= width
    lines: list[str] = []
    for block in blocks:
        widths = [max(len(title), *map(len, cells)) for title, cells in block.items()]
        rows = [list(block), *zip(*block.values(), strict=True)]
        lines += [""] if lines else []
        lines += [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
        ]
    return lines


if __name__ == "__main__":
    run_stage(lambda: main, "experiments", sys.argv[1:])
