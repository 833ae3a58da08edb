"""Table 1: accuracy and loss of every column on every dataset, with the paper's marks and values.

    table = table_one(runs, tests, kinds, published, 0.05, dataset_departures, variant_departures)
    print(markdown(table, alpha=0.05))

`table_one` returns numbers in long form; `layout` and `markdown` return texts.
"""

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd

from bla.base.paper import COLUMNS, PUBLISHED_AS
from bla.inference.paired import smallest_p, standard_error

MEASURES = ("accuracy", "loss", "explanation_size")
NOTE = (
    "Mean ± standard error of the mean over runs; accuracy and loss with hard explanations. "
    "† no significant difference to BL, ∗ none to the column on its left "
    "(Wilcoxon signed-rank, p ≥ {alpha:g}, uncorrected, as in the paper; tests.csv has Holm's correction). "
    "BL+ (ours) is BL trained on for as long as the variants train; it takes no part in the marks."
)
NOT_COMPARED = " Not compared with the paper: {dataset}, {columns}: {departures}."
NEARLY_ALL = 0.99
"""Share of the cells; a module that keeps more on average explains nothing."""
KEEP_ALL = " Modules that keep at least 99 % of the cells, so that they explain nothing: {modules}."
OWN = (
    " BL of {datasets} is a classifier of your own, so it has one value, and the row has no marks: tests.csv compares the "
    "runs of the other columns with this value, and run 0 with BL image by image. BL+ does not exist there."
)
NO_MARKS = " No marks for {datasets}: with so few runs no difference can be significant."


def title(variant: str) -> str:
    """A column's title: the paper's name if there is one, else the key of params.yaml."""
    return COLUMNS.get(variant, variant)


def table_one(
    runs: pd.DataFrame,
    tests: pd.DataFrame,
    kinds: Mapping[str, str],
    published: pd.DataFrame,
    alpha: float,
    dataset_departures: Mapping[str, Sequence[str]],
    variant_departures: Mapping[str, Sequence[str]],
) -> pd.DataFrame:
    """Table 1 in long form, a row per dataset, variant and measure, in the order of `runs`.

    `kinds` gives each dataset's kind. `runs_that_keep_all` counts the runs that keep at least `NEARLY_ALL` of the `n_cells`. If the paper used that dataset, and the settings are the paper's, `paper`,
    `paper_standard_error` and `z` = (ours - paper) / sqrt(SE^2 + SE^2) are filled; otherwise `departures` says how the
    settings differ, of the dataset (`dataset_departures`) and of the variant (`variant_departures`). `mark` has † or ∗ if `tests` has p >= alpha, unless its
    number of runs allows no p below alpha, or BL has one run: it is a classifier of one's own, without a standard error.
    """
    paper = published[published["where"] == "Table 1"].set_index(["dataset", "method", "quantity"])
    rows = []
    for (dataset, variant), group in runs.groupby(["dataset", "variant"], sort=False):
        for measure in MEASURES:
            values = group[measure].dropna().to_numpy()
            if not len(values):
                continue
            row: dict[str, Any] = {"dataset": dataset, "variant": variant, "measure": measure, "n_runs": len(values)}
            error = float(standard_error(values)) if len(values) > 1 else np.nan
            row |= {"mean": values.mean(), "standard_error": error}
            if measure == "explanation_size":
                row["runs_that_keep_all"] = int((group[measure] >= NEARLY_ALL * group["n_cells"]).sum())
            row["mark"] = _mark(tests, str(dataset), str(variant), measure, alpha)
            key = (kinds[str(dataset)], PUBLISHED_AS.get(str(variant), ""), measure)
            departures = [*dataset_departures.get(str(dataset), ()), *variant_departures.get(str(variant), ())]
            row["departures"] = ", ".join(departures) if key in paper.index else ""
            if key in paper.index and not departures:
                row |= {"paper": paper.loc[key, "value"], "paper_standard_error": paper.loc[key, "spread"]}
                spread = np.hypot(row["standard_error"], row["paper_standard_error"])
                row["z"] = (row["mean"] - row["paper"]) / spread
            rows.append(row)
    columns = ["dataset", "variant", "measure", "n_runs", "mean", "standard_error", "mark"]
    table = pd.DataFrame(
        rows, columns=[*columns, "runs_that_keep_all", "paper", "paper_standard_error", "z", "departures"]
    )
    table.loc[table["dataset"].isin(_own_classifiers(table)), "mark"] = ""
    return table


def _own_classifiers(table: pd.DataFrame) -> list[str]:
    """The datasets of Table 1 whose BL has one run: it is a classifier of one's own."""
    return list(dict.fromkeys(table.loc[(table["variant"] == "bl") & (table["n_runs"] == 1), "dataset"]))


def _mark(tests: pd.DataFrame, dataset: str, variant: str, measure: str, alpha: float) -> str:
    comparisons = tests[(tests["dataset"] == dataset) & (tests["variant"] == variant) & (tests["measure"] == measure)]
    same = comparisons[(comparisons["p"] >= alpha) & (comparisons["n_runs"].map(smallest_p) < alpha)]
    return "†" * int((same["against"] == "bl").any()) + "∗" * int(same["to_the_left"].any())


def layout(table: pd.DataFrame) -> list[pd.DataFrame]:
    """Table 1 in the paper's layout, a frame of texts per measure: a row per dataset, a column per variant."""
    frames = []
    variants, own = list(dict.fromkeys(table["variant"])), _own_classifiers(table)
    for measure, heading in zip(MEASURES, ("Accuracy", "Loss (nats)", "Explanation size (cells)"), strict=True):
        rows = []
        for dataset, group in table[table["measure"] == measure].groupby("dataset", sort=False):
            cells = group.set_index("variant")
            row = {heading: f"{dataset} (n = {group['n_runs'].max()}{'; BL n = 1' * (dataset in own)})"}
            rows.append(row | {title(v): _cell(cells.loc[v], measure) if v in cells.index else "–" for v in variants})
            if group["paper"].notna().any():
                row = {heading: f"{dataset}, paper (n = 20)"}
                rows.append(row | {title(v): _paper_cell(cells.loc[v]) if v in cells.index else "–" for v in variants})
        frames.append(pd.DataFrame(rows))
    return frames


def markdown(table: pd.DataFrame, alpha: float) -> str:
    """Table 1 as Markdown, with the note that explains its marks."""
    parts = [frame.to_markdown(index=False, disable_numparse=True) for frame in layout(table)]
    return "\n\n".join([*parts, fill(note(table, alpha), 120)]) + "\n"


def note(table: pd.DataFrame, alpha: float) -> str:
    """The note under Table 1: what the marks mean, which modules explain nothing, which datasets can have no marks, and what departs from the paper."""
    own = _own_classifiers(table)
    few = (table["n_runs"].map(smallest_p) >= alpha) & ~table["dataset"].isin(own)
    datasets = ", ".join(dict.fromkeys(f"{row.dataset} (n = {row.n_runs})" for row in table[few].itertuples()))
    modules = ", ".join(
        f"{row.runs_that_keep_all:.0f} of {row.n_runs} runs of {title(str(row.variant))} on {row.dataset}"
        for row in table[table["runs_that_keep_all"] > 0].itertuples()
    )
    parts = [
        NOTE.format(alpha=alpha),
        KEEP_ALL.format(modules=modules) if modules else "",
        NO_MARKS.format(datasets=datasets) if datasets else "",
        OWN.format(datasets=", ".join(own)) if own else "",
    ]
    for (dataset, departures), group in table[table["departures"] != ""].groupby(["dataset", "departures"], sort=False):
        columns = ", ".join(dict.fromkeys(map(title, group["variant"])))
        parts.append(NOT_COMPARED.format(dataset=dataset, columns=columns, departures=departures))
    return "".join(parts)


def _cell(row: "pd.Series[float]", measure: str) -> str:
    digits = 2 if measure == "explanation_size" else 4
    if row["n_runs"] == 1:
        return f"{row['mean']:.{digits}f}"
    mark = "" if measure == "explanation_size" else row["mark"]
    return f"{row['mean']:.{digits}f} ± {row['standard_error']:.{digits}f}{mark}"


def _paper_cell(row: "pd.Series[float]") -> str:
    if np.isnan(row["paper"]):
        return "–"
    return f"{row['paper']:.4f} ± {row['paper_standard_error']:.4f} (z = {row['z']:+.1f})"
