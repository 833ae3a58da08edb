"""Notebooks become self-contained pages, or one clear message."""

import json
import os
import re
import subprocess
import sys
from html import unescape
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from IPython.display import HTML, Markdown

from bla.base.errors import BlaError
from bla.datasets import drawn
from bla.experiments.related_methods.structure.measures import COVER
from bla.experiments.related_methods.structure.tables import QUANTITIES, beside_random, of_images, of_sufficient
from bla.report.notebooks import render, to_html
from pipeline.artifacts.prepared import save_drawn, save_tables_of
from pipeline.run.settings import load_settings
from pipeline.stages import reports

SHOWS_THE_LAST = "from IPython.display import HTML\nHTML('<b>' + variants[-1] + '</b>')"
GIVEN = {"datasets": ["d"], "variants": ["bla", "bla_ph"]}


@pytest.fixture
def notebook(tmp_path, monkeypatch):
    """`notebook(parameters, body)`: a notebook of two cells, n.ipynb."""
    monkeypatch.setenv("PATH", str(sys.executable).rpartition("/")[0], prepend=":")

    def write(parameters, body):
        page = nbformat.v4.new_notebook(
            metadata={"kernelspec": {"name": "python3", "display_name": "", "language": "python"}}
        )
        page.cells = [
            nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}),
            nbformat.v4.new_code_cell(body),
        ]
        nbformat.write(page, tmp_path / "n.ipynb")
        return tmp_path / "n.ipynb"

    return write


@pytest.mark.slow
def test_a_page_shows_results_without_code_scripts_or_links_to_the_net(notebook, tmp_path):
    path = notebook("datasets = []\nvariants = []", SHOWS_THE_LAST)
    once, again = (render(path, GIVEN, tmp_path / "work", ["n", "table1"]) for _ in range(2))
    assert "<b>bla_ph</b>" in once
    assert "IPython" not in once
    assert "<script" not in once
    assert "https://" not in once.partition("<body")[2]
    assert again == once
    assert (tmp_path / "work/n.ipynb").is_file()


def page_with(html):
    """An executed notebook whose only cell shows this HTML."""
    output = nbformat.v4.new_output("display_data", {"text/html": html})
    cell = nbformat.v4.new_code_cell("the_code = 1", outputs=[output], execution_count=7, id="random-id")
    cell.metadata = {"execution": {"iopub.execute_input": "2026-01-01T00:00:00"}}
    return nbformat.v4.new_notebook(cells=[cell], metadata={"papermill": {"duration": 3.21}})


def test_code_times_ids_scripts_and_style_imports_are_removed():
    html = to_html(
        page_with("<p>shown</p><script>alert(1)</script><style>@import url(https://x.org/a);</style>"),
        "n",
        ["n", "table1"],
    )
    assert "<p>shown</p>" in html
    for gone in ("the_code", "alert(1)", "<script", "https://x.org", "2026-01-01", "3.21", "random-id"):
        assert gone not in html
    assert "<title>n</title>" in html
    assert '<a href="n.html" aria-current=page>n</a><a href="table1.html">Table 1 and Figure 3</a>' in html


def test_tables_scroll_in_a_frame_of_their_own():
    html = to_html(page_with("<table><tr><td>1</td></tr></table><p>x</p><table><tr><td>2</td></tr></table>"), "n", [])
    assert html.count('<div class="scroll"><table>') == 2
    assert html.count("</table></div>") == 2


def test_a_notebook_without_the_parameters_is_refused(notebook, tmp_path):
    path = notebook("datasets = []", "1")
    with pytest.raises(BlaError, match=r"n\.ipynb: .*variants; add it"):
        render(path, GIVEN, tmp_path / "work", ["n", "table1"])


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    """`prepared(name, train, test)`: a dataset of one-coloured images, given as their colours; files are 00.png, 01.png, ..."""
    monkeypatch.chdir(tmp_path)

    def write(dataset, *colours_of_splits):
        folder, written = Path("data/images") / dataset, []
        for split, colours in zip(("train", "test"), colours_of_splits, strict=True):
            images = np.broadcast_to(np.uint8(colours)[:, None, None, None], (len(colours), 2, 2, 3))
            names = [f"{split}/{number:02}.png" for number in range(len(colours))]
            written.append(save_drawn(folder, split, drawn(images, np.zeros(len(colours), np.int64), None, names)))
        save_tables_of(folder, ["cat"], ["object"], written)
        return pd.read_csv(folder / "manifest.csv")

    return write


def shared_photographs(datasets):
    """What the page says about photographs in both splits: the notebook's own cell, rendered, without markup."""
    cells = nbformat.read(Path(__file__).parents[2] / "reports/notebooks/explanations.ipynb", as_version=4).cells
    imports, cell = (next(c.source for c in cells if word in c.source) for word in ("import pandas", "in_both_splits"))
    shown, names = [], {"datasets": datasets, "variants": []}
    with pd.option_context("display.max_colwidth", None):  # the notebook sets it
        exec(imports, names)
        exec(cell, names | {"display": shown.append})
    kinds = {Markdown: "text/markdown", HTML: "text/html"}
    outputs = [nbformat.v4.new_output("display_data", {kinds[type(text)]: text.data}) for text in shown]
    page = to_html(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(outputs=outputs)]), "explanations", [])
    return unescape(re.sub("<[^>]+>", "", page))


@pytest.mark.parametrize("count", [1, 2, 30])
def test_photographs_that_are_in_both_splits_are_counted_and_named(count, prepared, capsys):
    manifest = prepared("d", range(40), [*range(count), *range(100, 140 - count)])
    photographs = {1: "1 photograph is", 2: "2 photographs are", 30: "30 photographs are"}[count]
    assert capsys.readouterr().out.startswith(f"d: {photographs} in both splits (column in_both_splits of ")
    files = [f"{split}: {split}/{number:02}.png" for split in ("train", "test") for number in range(count)]
    marked = manifest[manifest["in_both_splits"]]
    assert (marked["split"] + ": " + marked["source"]).tolist() == files
    text = shared_photographs(["d"])
    assert f"d: {count} image" in text
    assert "both training and test image" in text
    assert "so the numbers here are too good: " + "; ".join(files[:20]) in text
    assert text.count(".png") == min(2 * count, 20)
    assert (" and 40 more (in_both_splits in manifest.csv)." in text) == (count == 30)


def test_without_photographs_in_both_splits_nothing_is_said(prepared, capsys):
    assert not prepared("d", [1, 1, 2], [3, 4, 4])["in_both_splits"].any()  # twice in one split is not in both
    assert "both" not in capsys.readouterr().out
    assert "both training and test" not in shared_photographs(["d"])


def test_each_dataset_has_its_own_count_and_a_photograph_that_is_there_thrice_counts_once(prepared):
    prepared("thrice", [5, 5, 6], [7, 5])
    prepared("none", [1], [2])
    prepared("twice", [1, 2], [2, 3, 1])
    text = shared_photographs(["thrice", "none", "twice"])
    assert text.count("both training and test image") == 2
    assert "none: " not in text
    assert "thrice: 1 image" in text
    assert ": train: train/00.png; train: train/01.png; test: test/01.png." in text
    assert "twice: 2 images" in text
    assert ": train: train/00.png; train: train/01.png; test: test/00.png; test: test/02.png." in text


@pytest.mark.parametrize(
    ("right", "said"),
    [([True, True], ["a", "b"]), ([False, False], ["a", "b"]), ([True, False], [])],
)
def test_the_page_of_structures_says_where_right_is_not_tested_against_wrong(right, said, tmp_path, monkeypatch):
    """No table without rows is shown: the notebook's own cell, with two images of each of two datasets."""
    cells = nbformat.read(Path("reports/notebooks/structure.ipynb").resolve(), as_version=4).cells
    monkeypatch.chdir(tmp_path)
    Path("reports/tables").mkdir(parents=True)
    counts = {key: [1, 2, 1, 2] for key in (*QUANTITIES, "sets_found", "minimal_sets")}
    images = pd.DataFrame(
        {"dataset": list("aabb"), "class": "c", "right": right * 2, "most_sets": [2, 2, 3, 3]} | counts
    )
    empty = dict.fromkeys(("_hard", "_relations", "_parts"), pd.DataFrame(columns=["dataset"]))
    for name, table in (of_images(images, 4) | empty).items():
        table.to_csv(f"reports/tables/structure{name}.csv", index=False)
    imports, cell = (next(c.source for c in cells if word in c.source) for word in ("import pandas", "show(tests"))
    shown, names = [], {}
    with pd.option_context("display.max_colwidth", None):
        exec(imports, names)
        exec(cell, names | {"display": shown.append, "show": lambda table: shown.append(HTML(table.to_html()))})
    texts = [each.data for each in shown]
    assert all("<td>" in text for text in texts if text.startswith("<table"))
    assert ["right predictions are not tested" in text for text in texts].count(True) == bool(said)
    assert all(f"On {', '.join(said)} right" in text for text in texts if "are not tested" in text)
    assert any("n_wrong" in text for text in texts) == (not said)
    assert [text for text in texts if "the search ended" in text] == [
        "On a the search ended at 2 sets (`explainer.sag.sets`) in 1 of 2 images; these may have more."
    ]


def test_the_paragraph_beside_minimal_explanations_counts_the_images_whose_patches_can_go(tmp_path, monkeypatch):
    """Sufficient hard explanations of one run may be few, while the share that suffices is of all runs."""
    cells = nbformat.read(Path("reports/notebooks/structure.ipynb").resolve(), as_version=4).cells
    functions, cell = (
        next(c.source for c in cells if word in c.source) for word in ("import pandas", "cells_to_spare'")
    )
    monkeypatch.chdir(tmp_path)
    Path("reports/tables").mkdir(parents=True)
    first = {"dataset": "d", "method": "bla", "title": "BLA", "cells": 3.0, "p_holm": 0.1, "p_holm_smallest": 0.1}
    found = {
        "sufficient": beside_random(np.eye(20, 8), np.zeros((20, 8))),
        "cells_to_spare": of_sufficient(np.array([0, 1, *[np.nan] * 6]), np.full(8, np.nan)),
    }
    sizes = {"sufficient": 24.86, "cells_to_spare": 12}
    of_run = {"run": 1, "cells_of_run": 12.34}
    hard = [first | of_run | {"quantity": quantity, "cells": sizes[quantity]} | row for quantity, row in found.items()]
    relations = [first | {"set": "hard", "n": 160} | dict.fromkeys(COVER, 0.2)]
    empty = pd.DataFrame(columns=["dataset"])
    tables = {"_hard": pd.DataFrame(hard), "_relations": pd.DataFrame(relations)}
    for name in ("", "_images", "_tests", "_explained", "_hard", "_relations", "_parts"):
        tables.get(name, empty).to_csv(f"reports/tables/structure{name}.csv", index=False)
    shown, names = [], {}
    with pd.option_context("display.max_colwidth", None):
        exec(functions, names)
        exec(cell, names | {"display": shown.append, "Image": lambda path, alt: None})
    (paragraph,) = (each.data for each in shown if isinstance(each, Markdown))
    assert "(20 runs, 8 images)" in paragraph
    assert "run 1, the one measured, keeps 12.3 cells on average, all 20 runs 24.9;" in paragraph
    assert "of a sufficient one 0.5 patches can go (the run measured, n = 2);" in paragraph


@pytest.mark.slow
def test_an_error_in_a_notebook_is_one_message_and_keeps_the_old_page(notebook, tmp_path, monkeypatch):
    notebook("datasets = []\nvariants = []", "1 / 0")
    settings = load_settings().model_copy(update={"reports": ["n"]})
    monkeypatch.setattr(reports, "load_settings", lambda: settings)
    monkeypatch.setattr(reports, "NOTEBOOKS", tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reports/html").mkdir(parents=True)
    (tmp_path / "reports/html/n.html").write_text("old")
    with pytest.raises(BlaError, match=r"n\.ipynb: ZeroDivisionError in cell \d"):
        reports.main()
    assert (tmp_path / "reports/html/n.html").read_text() == "old"


@pytest.mark.slow
@pytest.mark.parametrize("trap", ["profile", "startup file", "kernel", "own kernel", "PYTHONSTARTUP", "home"])
def test_settings_of_the_user_s_jupyter_change_no_page(trap, notebook, tmp_path, monkeypatch):
    """A profile and a start-up file that change pandas' digits, and a kernel that does not start."""
    path = notebook("datasets = []\nvariants = []", "import pandas as pd\npd.Series([1 / 3, 2.0])")
    home, precision = tmp_path / "home", "import pandas\npandas.set_option('display.precision', 1)\n"
    (home / "profile_default/startup").mkdir(parents=True)
    (home / "kernels/python3").mkdir(parents=True)
    if trap == "profile":
        (home / "profile_default/ipython_config.py").write_text(f"c = get_config()\nc.InteractiveShellApp.exec_lines = {precision.splitlines()!r}")  # fmt: skip
        monkeypatch.setenv("IPYTHONDIR", str(home))
    elif trap == "startup file":
        (home / "profile_default/startup/00.py").write_text(precision)
        monkeypatch.setenv("IPYTHONDIR", str(home))
    elif trap == "home":
        (tmp_path / "user").mkdir()
        (home / "profile_default/startup/00.py").write_text(precision)
        (tmp_path / "user/.ipython").symlink_to(home)
        for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_PATH"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HOME", str(tmp_path / "user"))
    elif trap.endswith("kernel"):
        (home / "kernels/python3/kernel.json").write_text(json.dumps({"argv": ["/bin/false"], "display_name": "x", "language": "python"}))  # fmt: skip
        monkeypatch.setenv("JUPYTER_DATA_DIR" if trap == "own kernel" else "JUPYTER_PATH", str(home))
    else:
        (home / "start.py").write_text(precision)
        monkeypatch.setenv("PYTHONSTARTUP", str(home / "start.py"))
    assert "0.333333" in render(path, GIVEN, tmp_path / "work", [])


@pytest.mark.parametrize(
    ("line", "variable"),
    [
        ("text.usetex: True", "MATPLOTLIBRC"),
        ("axes.facecolor: black", "MATPLOTLIBRC"),
        ("axes.facecolor: black", "MPLCONFIGDIR"),
        ("font.size: 40", "PWD"),  # in the working directory
        ("not a setting", "MATPLOTLIBRC"),
    ],
)
def test_a_matplotlibrc_of_the_user_changes_no_picture(line, variable, tmp_path):
    draw = (
        "import sys, pathlib; from bla.plotting.style import save_figure; import matplotlib.pyplot as plt\n"
        "figure, axis = plt.subplots(figsize=(1, 1)); axis.plot([1, 2]); axis.set_title('a_b')\n"
        "save_figure(figure, pathlib.Path(sys.argv[1]), 'png')"
    )
    (tmp_path / "matplotlibrc").write_text(line)
    pictures = []
    for place in (tmp_path, None):
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | ({variable: str(place)} if place else {})  # fmt: skip
        target = tmp_path / f"{len(pictures)}.png"
        subprocess.run([sys.executable, "-c", draw, target], cwd=place if variable == "PWD" else None, env=environment, check=True, capture_output=True)  # fmt: skip
        pictures.append(target.read_bytes())
    assert pictures[0] == pictures[1]
