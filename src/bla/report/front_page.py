"""The front page, reports/html/index.html: Tables 1 and 2, Figure 3, the claims and links to the reports."""

import base64
import html
from collections.abc import Sequence

import pandas as pd

from bla.experiments.table1.tables import layout, note
from bla.experiments.table2.tables import departures_note, table_two_layout

REPORTS = {
    "table1": "Table 1 and Figure 3: accuracy, loss, every test and every claim",
    "explanations": "Explanations: what each column looks at, how many cells it needs, and what that depends on",
    "faithfulness": "How faithful is an explanation? Table 2, and every method under the field's metrics",
    "temperature_threshold": "Temperature and threshold: what they do, and where learning dies",
    "small_cnn": "Section 4.1: a small network on 3 and 8, trained whole with and without bounded logits",
    "two_network_l2x": "Section 4.1: L2X with two networks, and why its hard explanations fall to chance",
    "abandoned_modules": "Section 3.3: a concept vector and pointwise attention, and why they were given up (Figure 24)",
    "unstated_choices": "What the paper does not say: five silent choices, each made both ways and tested",
}
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color: #222 } table {
border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; display: block; overflow-x: auto } th, td
{ padding: .3rem .7rem; border-bottom: 1px solid #ddd; text-align: left } img { max-width: 100% }
"""


def front_page(
    table1: pd.DataFrame,
    table2: pd.DataFrame,
    claims: pd.DataFrame,
    figure3: bytes,
    reports: Sequence[str],
    alpha: float,
) -> str:
    """The page as HTML, self-contained except for the linked reports; `figure3` is the content of a PNG file."""
    table1, table2 = _with_texts(table1, "mark", "departures"), _with_texts(table2, "departures")
    tables = [frame.to_html(index=False, border=0) for frame in layout(table1)]
    titles = dict(zip(table2["method"], table2["title"], strict=True))
    two, departing = table_two_layout(table2, titles), departures_note(table2, titles)
    answered = claims[claims["holds_here"] != ""][["claim", "text", "dataset", "ours", "holds_here", "verdict"]]
    links = "".join(f'<li><a href="{name}.html">{html.escape(REPORTS.get(name, name))}</a></li>' for name in reports)
    picture = base64.b64encode(figure3).decode()
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,
initial-scale=1"><title>Bounded logit attention, reproduced</title> <style>{STYLE}</style></head><body> <h1>Bounded
logit attention, reproduced</h1> <p>Baumhauer, Slijepcevic and Zeppelzauer, <em>Bounded logit attention: Learning to
explain image classifiers</em>, arXiv 2105.14824. Every number on this page was written by <code>dvc repro</code>.</p>
<ul>{links}</ul> <h2>Table 1</h2> {"".join(tables)} <p>{html.escape(note(table1, alpha))}</p> <h2>Table 2</h2>
{two.to_html(index=False, border=0)} <p>Mean ± standard error over images of Spearman's ρ with LIME's map of the
baseline. LIME again, with other random patterns, is the ceiling.{html.escape(departing)}</p> <h2>Figure 3</h2> <img alt="Error rate and loss of
every run, by column and dataset; numbers are in Table 1" src="data:image/png;base64,{picture}"> <h2>Claims that were
tried here</h2> <p>holds_here: what the test says on this dataset. verdict: only the paper's own datasets can reproduce
or refute.</p> {answered.to_html(index=False, border=0)} </body></html>
"""


def _with_texts(table: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """The table with empty texts in these columns, which pandas reads from a CSV as NaN."""
    return table.assign(**{name: table[name].astype(object).fillna("") for name in columns})
