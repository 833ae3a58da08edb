"""The front page: tables, claims, the embedded figure, and links to the reports."""

import base64

import numpy as np
import pandas as pd
import pytest

from bla.report.front_page import REPORTS, front_page

PNG = b"\x89PNG of Figure 3"


@pytest.fixture(scope="module")
def page():
    rows = [
        {"dataset": "d", "variant": v, "measure": m, "n_runs": 2, "mean": 0.8125, "standard_error": 0.01, "mark": mark}
        for v, mark in (("bl", np.nan), ("bla", "†"))  # an empty mark, as pandas reads it from the CSV
        for m in ("accuracy", "loss", "explanation_size")
    ]
    table1 = pd.DataFrame(rows).assign(paper=np.nan, paper_standard_error=np.nan, z=np.nan, departures=np.nan)
    table2 = pd.DataFrame(
        [{"dataset": "d", "method": "cam", "title": "CAM", "n_images": 9, "mean": 0.5, "standard_error": 0.1, "paper": np.nan, "departures": np.nan}]
    )  # fmt: skip
    claims = pd.DataFrame(
        {
            "claim": [1, 18],
            "text": ["BLA beats <L2X-F>", "people prefer"],
            "dataset": ["d", ""],
            "ours": ["0.8", ""],
            "holds_here": ["yes", ""],
            "verdict": ["reproduced", "not run"],
            "p": [0.01, np.nan],
        }
    )
    return front_page(table1, table2, claims, PNG, ["table1", "my_own"], 0.05)


def test_the_page_has_the_tables_with_marks_and_without_nan(page):
    assert "0.8125 ± 0.0100†" in page
    assert "0.50 ± 0.10" in page
    assert "nan" not in page.lower()


def test_only_claims_that_were_tested_are_shown_and_their_text_is_escaped(page):
    assert "BLA beats &lt;L2X-F&gt;" in page
    assert "people prefer" not in page


def test_the_figure_is_embedded_and_nothing_is_downloaded(page):
    assert f"data:image/png;base64,{base64.b64encode(PNG).decode()}" in page
    assert "http" not in page
    assert "<script" not in page


def test_the_page_links_the_reports_that_ran_by_title_or_name(page):
    assert f'<a href="table1.html">{REPORTS["table1"]}</a>' in page
    assert '<a href="my_own.html">my_own</a>' in page
    assert "unstated_choices.html" not in page
