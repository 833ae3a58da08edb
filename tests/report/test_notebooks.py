"""Notebooks become self-contained pages, or one clear message."""

import json
import os
import subprocess
import sys

import nbformat
import pytest

from bla.base.errors import BlaError
from bla.report.notebooks import render, to_html
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
