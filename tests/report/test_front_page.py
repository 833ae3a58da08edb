"""The front page: the answers, tables, claims, embedded pictures, and links to the reports."""

import base64
import re

import numpy as np
import pandas as pd
import pytest

from bla.report.front_page import front_page, summary
from bla.report.page import short

PNG = b"\x89PNG of "
CLAIMS = pd.DataFrame(
    {
        "claim": [1, 1, 2, 3, 18],
        "text": [
            "BLA beats <L2X-F>: accuracy",
            "BLA beats <L2X-F>: loss",
            "it is small",
            "it is fast",
            "people prefer",
        ],
        "dataset": ["d", "d", "d", "d", ""],
        "ours": ["0.8", "0.3", "7 cells", "1 s", ""],
        "test": "Wilcoxon",
        "holds_here": ["yes", "no", "no", "inconclusive", ""],
        "verdict": "not run",
        "reason": "not one of the paper's datasets",
        "p": [0.01, 0.02, 0.03, 0.5, np.nan],
    }
)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    rows = [
        {"dataset": "d", "variant": v, "measure": m, "n_runs": 2, "mean": 0.8125, "standard_error": 0.01, "mark": mark}
        for v, mark in (("bl", np.nan), ("bla", "†"))  # an empty mark, as pandas reads it from the CSV
        for m in ("accuracy", "loss", "explanation_size")
    ]
    empty = {
        "runs_that_keep_all": np.nan,
        "paper": np.nan,
        "paper_standard_error": np.nan,
        "z": np.nan,
        "departures": np.nan,
    }
    table1 = pd.DataFrame(rows).assign(**empty)
    table2 = pd.DataFrame(
        [{"dataset": "d", "method": "cam", "title": "CAM", "n_images": 9, "mean": 0.5, "standard_error": 0.1} | empty]
    )
    shared = {"dataset": "d", "numbers": "7.1 ± 0.1 against 24.5 ± 0", "difference": -17.4, "low": -18, "high": -17}
    shared |= {"p_holm": 0.001, "n_runs": 20.0, "n_images": 480.0}
    answers = pd.DataFrame(
        [
            {"question": "Is it small?", "answer": "yes", **shared},
            {"question": "Is it <good>?", "answer": "no", **shared},
            {"question": "Are there masks?", "answer": "not run", "dataset": "d"},
        ]
    )
    folder, pictures = tmp_path_factory.mktemp("pictures"), {}
    for name in ("overview", "table1", "figure3"):
        pictures[name] = folder / f"{name}.png"
        pictures[name].write_bytes(PNG + name.encode())
    return front_page(table1, table2, CLAIMS, answers, pictures, ["table1", "my_own"], 0.05, 3)


def test_the_page_has_the_tables_with_marks_and_without_nan(page):
    assert "0.8125 ± 0.0100†" in page
    assert "0.50 ± 0.10" in page
    assert "nan" not in page.lower()


def test_a_no_is_printed_like_a_yes(page):
    assert '<td class="yes">✓ yes</td>' in page
    assert '<td class="no">✗ no</td>' in page
    assert '<td class="open">– not run</td>' in page
    assert "Is it &lt;good&gt;?" in page
    assert "-17.400 [-18.000, -17.000]" in page


def test_claims_are_a_matrix_whose_cells_open_to_their_tests(page):
    assert '<tr id="claim-1"><td>1</td><td>BLA beats &lt;L2X-F&gt;</td><td class="open"><details><summary>✓ ✗' in page
    assert "Wilcoxon, p = 0.01 Verdict: not run (not one of the paper&#x27;s datasets)." in page
    assert "people prefer" in page


def test_the_summary_names_claims_by_their_answers():
    linked = summary(CLAIMS, ["d"])
    assert '<a href="#claim-1" title="BLA beats &lt;L2X-F&gt;">1</a>' in linked
    text = re.sub("<[^>]*>", "", linked)
    assert "On d, of the claims, do not hold: 2; get different answers from different tests: 1; cannot be told: 3." in text  # fmt: skip
    assert "no claim is reproduced or refuted here" in text
    judged = summary(
        CLAIMS.assign(verdict=["reproduced", "not reproduced", "reproduced", "inconclusive", "not run"]), ["d"]
    )
    assert judged.endswith("Verdicts: 2 reproduced, 1 not reproduced, 1 inconclusive.")


@pytest.mark.parametrize("name", ["overview", "table1", "figure3"])
def test_pictures_are_embedded(name, page):
    assert f"data:image/png;base64,{base64.b64encode(PNG + name.encode()).decode()}" in page


def test_nothing_is_downloaded(page):
    assert "http" not in page
    assert "<script" not in page


def test_every_page_links_the_reports_that_ran_by_title_or_name(page):
    assert f'<a href="table1.html">{short("table1")}</a>' in page
    assert '<a href="my_own.html">my_own</a>' in page
    assert '<a href="index.html" aria-current=page>Front page</a>' in page
    assert "unstated_choices.html" not in page
