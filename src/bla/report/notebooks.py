"""Notebooks as HTML pages for offline reading: executed by papermill, without code, times, random ids and remote files."""

import os
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat
import papermill
from nbconvert import HTMLExporter

from bla.base.errors import BlaError
from bla.report.page import page, short, with_scrolling


def render(notebook: Path, parameters: dict[str, Any], work: Path, names: Sequence[str]) -> str:
    """Execute a notebook with these parameters and return its page; the executed notebook is kept in the folder `work`.

    `names` are the reports that the page links to.

    Raises BlaError if the notebook lacks a parameter or one of its cells fails.
    """
    unknown = parameters.keys() - papermill.inspect_notebook(str(notebook)).keys()
    if unknown:  # papermill only warns
        raise BlaError(
            f"{notebook}: has no parameter {', '.join(sorted(unknown))}; add it to the cell tagged parameters"
        )
    work.mkdir(exist_ok=True)
    executed = work / notebook.name
    os.environ |= _without_settings_of_the_user(work)
    # A running kernel ends with this process by itself; this line ends one whose parent is lost while it starts.
    orphan = f"if __import__('os').getppid() != {os.getpid()}: __import__('os')._exit(1)"
    try:
        papermill.execute_notebook(
            str(notebook),
            str(executed),
            parameters,
            kernel_name="python3",
            progress_bar=False,
            extra_arguments=["--IPKernelApp.log_level=CRITICAL", f"--IPKernelApp.exec_lines={orphan}"],
        )
    except papermill.PapermillExecutionError as error:
        raise BlaError(f"{notebook}: {error.ename} in cell {error.cell_index}: {error.evalue}") from error
    return to_html(nbformat.read(executed, as_version=4), notebook.stem, names)


def _without_settings_of_the_user(work: Path) -> dict[str, str]:
    """Environment variables with which Jupyter and IPython read no kernels, profiles and start-up files of the user."""
    empty = str((work / "jupyter").resolve())
    names = ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_CONFIG_PATH", "JUPYTER_PATH")
    return dict.fromkeys(names, empty) | {"JUPYTER_PREFER_ENV_PATH": "1", "PYTHONSTARTUP": ""}


def to_html(executed: nbformat.NotebookNode, name: str, names: Sequence[str]) -> str:
    """The notebook as one HTML page without code, times, random ids, or remote files."""
    executed.metadata = {"title": name}
    for number, cell in enumerate(executed.cells):
        cell.id, cell.metadata = f"cell-{number}", {"tags": cell.metadata.get("tags", [])}
    exporter = HTMLExporter(
        template_name="basic",
        exclude_input=True,
        exclude_input_prompt=True,
        exclude_output_prompt=True,
        embed_images=True,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        html, _ = exporter.from_notebook_node(executed)
    html = re.sub(r"<script[^>]*>.*?</script>", "", html, flags=re.DOTALL)
    html = re.sub(r"@import url\([^)]*\);?", "", html)
    return page(short(name), with_scrolling(html), name, names)
