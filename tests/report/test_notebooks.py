"""Notebooks become pages that need nothing else, or one clear message."""

import sys

import nbformat
import pytest

from bla.base.errors import BlaError
from pipeline.run.settings import load_settings
from pipeline.stages import reports


def notebook(tmp_path, parameters: str, body: str):
    page = nbformat.v4.new_notebook(
        metadata={"kernelspec": {"name": "python3", "display_name": "", "language": "python"}}
    )
    page.cells = [
        nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell(body),
    ]
    nbformat.write(page, tmp_path / "n.ipynb")


@pytest.fixture(autouse=True)
def in_a_project(tmp_path, monkeypatch):
    settings = load_settings().model_copy(update={"reports": ["n"]})
    monkeypatch.setattr(reports, "load_settings", lambda: settings)
    monkeypatch.setattr(reports, "front_page", lambda settings: "front")
    monkeypatch.setattr(reports, "NOTEBOOKS", tmp_path)
    monkeypatch.setattr(reports, "HTML", tmp_path / "html")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(sys.executable).rpartition("/")[0], prepend=":")


def test_a_page_shows_results_without_code_scripts_or_links_to_the_net(tmp_path):
    notebook(
        tmp_path,
        "datasets = []\nvariants = []",
        "from IPython.display import HTML\nHTML('<b>' + variants[-1] + '</b>')",
    )
    reports.main()
    once = (tmp_path / "html/n.html").read_text()
    assert "<b>bla_ph</b>" in once
    assert "IPython" not in once
    assert "<script" not in once
    assert "https://" not in once.partition("<body")[2]
    reports.main()
    assert (tmp_path / "html/n.html").read_text() == once


def test_a_notebook_without_the_parameters_is_refused(tmp_path):
    notebook(tmp_path, "datasets = []", "1")
    with pytest.raises(BlaError, match=r"n\.ipynb: has no parameter variants; add it to the cell tagged parameters"):
        reports.main()


def test_an_error_in_a_notebook_is_one_message_and_leaves_the_old_page(tmp_path):
    notebook(tmp_path, "datasets = []\nvariants = []", "1 / 0")
    (tmp_path / "html").mkdir()
    (tmp_path / "html/n.html").write_text("old")
    with pytest.raises(BlaError, match=r"n\.ipynb: ZeroDivisionError in cell \d: division by zero"):
        reports.main()
    assert (tmp_path / "html/n.html").read_text() == "old"
