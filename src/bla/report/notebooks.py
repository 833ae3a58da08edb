"""Notebooks as HTML pages for offline reading: executed by papermill, without code, times, random ids and remote files."""

import re
import warnings
from pathlib import Path
from typing import Any

import nbformat
import papermill
from nbconvert import HTMLExporter

from bla.base.errors import BlaError

REMOTE = ("mathjax_url", "jquery_url", "require_js_url", "widget_renderer_url", "mermaid_js_url")


def render(notebook: Path, parameters: dict[str, Any], work: Path) -> str:
    """Execute a notebook with these parameters and return its HTML; the executed notebook is kept in the folder `work`.

    Raises BlaError if the notebook lacks a parameter or one of its cells fails.
    """
    unknown = parameters.keys() - papermill.inspect_notebook(str(notebook)).keys()
    if unknown:  # papermill only warns
        raise BlaError(
            f"{notebook}: has no parameter {', '.join(sorted(unknown))}; add it to the cell tagged parameters"
        )
    work.mkdir(exist_ok=True)
    executed = work / notebook.name
    try:
        papermill.execute_notebook(
            str(notebook),
            str(executed),
            parameters,
            kernel_name="python3",
            progress_bar=False,
            extra_arguments=["--IPKernelApp.log_level=CRITICAL"],
        )
    except papermill.PapermillExecutionError as error:
        raise BlaError(f"{notebook}: {error.ename} in cell {error.cell_index}: {error.evalue}") from error
    page = nbformat.read(executed, as_version=4)
    return to_html(page, notebook.stem)


def to_html(page: nbformat.NotebookNode, name: str) -> str:
    """The notebook as one HTML page without code, times, random ids, or remote files."""
    page.metadata = {"title": name}
    for number, cell in enumerate(page.cells):
        cell.id, cell.metadata = f"cell-{number}", {"tags": cell.metadata.get("tags", [])}
    exporter = HTMLExporter(
        exclude_input=True, exclude_input_prompt=True, exclude_output_prompt=True, embed_images=True
    )
    for option in REMOTE:
        if exporter.has_trait(option):
            exporter.set_trait(option, "")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        html, _ = exporter.from_notebook_node(page)
    html = re.sub(r"<script[^>]*>.*?</script>", "", html, flags=re.DOTALL)
    html = re.sub(r"@import url\([^)]*\);?", "", html)
    return html.replace("<body", "<body style='max-width:75rem;margin:auto'", 1)
