"""The front page, reports/html/index.html: the method in a picture, the answers here, Table 1, and every claim."""

import base64
import html
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from bla.experiments.table1.tables import layout, note
from bla.experiments.table2.tables import departures_note, table_two_layout
from bla.report.page import BROWSER, REPORTS, page, with_scrolling

METHOD = (
    "Bounded logit attention (BLA) explains an image classifier that it does not change: a small module reads the feature "
    "map of a frozen network, and learns which of its cells the prediction needs. Each cell's logit is cut at an upper "
    "bound, and the cells that reach the bound are kept: as many as the image needs, not a fixed number. The class is then "
    "predicted from the mean of the kept cells alone, so the explanation is what the prediction was made from."
)
SIGNS = {"yes": "✓", "no": "✗", "inconclusive": "?", "": "–"}


def front_page(
    table1: pd.DataFrame,
    table2: pd.DataFrame,
    claims: pd.DataFrame,
    answers: pd.DataFrame,
    pictures: Mapping[str, Path],
    reports: Sequence[str],
    alpha: float,
    run: int,
) -> str:
    """The page as HTML, self-contained except for the linked reports.

    `run` is the run of the pictures; `answers` is the table of the stage `what_the_method_does`; `pictures` are PNG files: `overview`, `table1` and
    `figure3`.
    """
    datasets = list(dict.fromkeys(table1["dataset"]))
    table1, table2 = _with_texts(table1, "mark", "departures"), _with_texts(table2, "departures")
    one = "".join(frame.to_html(index=False, border=0) for frame in layout(table1))
    titles = dict(zip(table2["method"], table2["title"], strict=True))
    two, departing = table_two_layout(table2, titles), departures_note(table2, titles)
    links = "".join(f'<li><a href="{name}.html">{html.escape(REPORTS.get(name, name))}</a></li>' for name in reports)
    first = f"What each column keeps of some test images of {datasets[0]}, and what it predicts from that"
    body = f"""<h1>Bounded logit attention, reproduced</h1>
<p>{html.escape(METHOD)}</p>
<div class="large">{_picture(pictures["overview"], first)}</div>
<p><small>{html.escape(first)} (run {run}): predicted class and its probability, in bold where it is right. Baumhauer,
Slijepcevic and Zeppelzauer, <em>Bounded logit attention: Learning to explain image classifiers</em>, arXiv 2105.14824.
Every number on this page was written by <code>dvc repro</code>.</small></p>
<h2>What the method does here</h2>
<p>{summary(claims, datasets)}</p>
{with_scrolling(_answers(answers))}
<p><small>Yes or no: Holm's corrected p of a Wilcoxon signed-rank test over runs is below {alpha:g}, and the 95 %
interval of the difference over runs and images excludes 0; otherwise inconclusive. Numbers are means ± standard errors
over runs.</small></p>
<h2>Table 1</h2>
{_picture(pictures["table1"], "Accuracy, loss and explanation size of every column, with intervals; numbers are in the table below")}
{with_scrolling(one)} <p><small>{html.escape(note(table1, alpha))}</small></p>
<h2>Claims</h2>
<p>Up to 20 the paper's claims, from 21 on ours. One row per claim, one column per dataset; open a cell to see its tests. ✓ yes, ✗ no, ? inconclusive, – not run. Only
the paper's own datasets can reproduce or refute a claim; elsewhere the answer is about that dataset.</p>
{with_scrolling(_matrix(claims, datasets))}
<h2>Table 2</h2>
{with_scrolling(two.to_html(index=False, border=0))}
<p><small>Mean ± standard error over images of Spearman's ρ with LIME's map of the baseline. LIME again, with other random
patterns, is the ceiling.{html.escape(departing)}</small></p>
<h2>Figure 3</h2>
{_picture(pictures["figure3"], "Error rate and loss of every run, by column and dataset; numbers are in Table 1")}
<h2>All reports</h2> <ul>{links}
<li><a href="{BROWSER}">Explanation browser: every test image with all methods' maps, to filter, sort and link</a></li></ul>"""
    return page("Bounded logit attention, reproduced", body, "index", reports)


def summary(claims: pd.DataFrame, datasets: Sequence[str]) -> str:
    """As HTML, which claims hold, which do not, and which cannot be told, on each dataset; numbers lead to their rows."""
    texts = claims.groupby("claim")["text"].first().str.partition(":")[0]
    sentences = []
    for dataset in datasets:
        by_answer: dict[str, list[str]] = {"yes": [], "no": [], "mixed": [], "inconclusive": []}
        for number, rows in claims[claims["dataset"] == dataset].groupby("claim"):
            told = set(rows["holds_here"]) - {""}
            if told:
                link = f'<a href="#claim-{number}" title="{html.escape(texts[number])}">{number}</a>'
                by_answer[told.pop() if len(told) == 1 else "mixed"].append(link)
        parts = [
            f"{words} {', '.join(by_answer[answer])}"
            for answer, words in (
                ("yes", "hold:"),
                ("no", "do not hold:"),
                ("mixed", "get different answers from different tests:"),
                ("inconclusive", "cannot be told:"),
            )
            if by_answer[answer]
        ]
        if parts:
            sentences.append(f"On {html.escape(dataset)}, of the claims, {'; '.join(parts)}.")
    judged = claims[claims["verdict"].isin(["reproduced", "not reproduced", "inconclusive"])]
    if len(judged):
        counts = judged["verdict"].value_counts()
        sentences.append("Verdicts: " + ", ".join(f"{count} {verdict}" for verdict, count in counts.items()) + ".")
    else:
        sentences.append(
            "None of these datasets with these settings is the paper's, so no claim is reproduced or refuted here: "
            "the answers say whether the same happens on other data."
        )
    return " ".join(sentences)


def _answers(answers: pd.DataFrame) -> str:
    """The questions about each dataset as a table; every answer looks the same, whichever it is."""
    rows = []
    for row in answers.to_dict("records"):
        texts = [row["dataset"], row["question"]] + [""] * 4
        if row["answer"] in SIGNS:
            texts[2] = row["numbers"]
            texts[3] = f"{row['difference']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]"
            texts[4] = f"{row['p_holm']:.2g}"
            texts[5] = f"{row['n_runs']:.0f} runs, {row['n_images']:.0f} images"
        cells = "".join(f"<td>{html.escape(str(text))}</td>" for text in texts)
        kind, sign = (row["answer"] if row["answer"] in SIGNS else "open"), SIGNS.get(row["answer"], "–")
        rows.append(f'<tr>{cells}<td class="{kind}">{sign} {row["answer"]}</td></tr>')
    heads = ("dataset", "question", "numbers", "difference, 95 %", "p (Holm)", "n", "answer")
    return f"<table><thead><tr>{''.join(f'<th>{h}</th>' for h in heads)}</tr></thead>{''.join(rows)}</table>"


def _matrix(claims: pd.DataFrame, datasets: Sequence[str]) -> str:
    """Claims by datasets; a cell opens to its tests. Cases without a dataset stand in the last column."""
    columns = [*datasets, *dict.fromkeys(name for name in claims["dataset"] if name not in datasets and name), ""]
    heads = "".join(f"<th>{html.escape(name or 'no dataset')}</th>" for name in columns)
    rows = []
    for number, cases in claims.groupby("claim", sort=False):
        texts = list(dict.fromkeys(text.partition(":")[0] for text in cases["text"]))
        cells = "".join(_cell(cases[cases["dataset"] == name]) for name in columns)
        rows.append(f'<tr id="claim-{number}"><td>{number}</td><td>{html.escape("; ".join(texts))}</td>{cells}</tr>')
    return f"<table><thead><tr><th></th><th>claim</th>{heads}</tr></thead>{''.join(rows)}</table>"


def _cell(cases: pd.DataFrame) -> str:
    """The answers to a claim on a dataset, with their tests."""
    if not len(cases):
        return "<td></td>"
    answers = list(cases["holds_here"])
    signs = " ".join(SIGNS[answer] for answer in answers)
    kind = answers[0] if len(set(answers)) == 1 and answers[0] else "open"
    tests = "".join(_test(case) for case in cases.to_dict("records"))
    return f'<td class="{kind}"><details><summary>{signs}</summary>{tests}</details></td>'


def _test(case: dict[Hashable, Any]) -> str:
    """One test of a claim as a paragraph."""
    p = "" if pd.isna(case["p"]) else f", p = {case['p']:.2g}"
    reason = f" ({case['reason']})" if case["reason"] else ""
    told = f"{case['ours']} {case['test']}{p} Verdict: {case['verdict']}{reason}."
    return f"<p>{html.escape(case['text'])}: <b>{case['holds_here'] or 'not run'}</b>. {html.escape(told)}</p>"


def _picture(path: Path, alt: str) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{data}">'


def _with_texts(table: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """The table with empty texts in these columns, which pandas reads from a CSV as NaN."""
    return table.assign(**{name: table[name].astype(object).fillna("") for name in columns})
