"""Stage `reports`: notebooks executed by papermill, and a front page, as HTML pages in reports/html/ that read offline."""

import os
import re
import warnings
from concurrent.futures import ThreadPoolExecutor

import nbformat
import papermill
from nbconvert import HTMLExporter
from tqdm import tqdm

from bla.base.errors import BlaError
from pipeline.artifacts.files import save_text
from pipeline.artifacts.paths import HTML, NOTEBOOKS
from pipeline.run.front_page import front_page
from pipeline.run.settings import Settings, load_settings
from pipeline.run.stage import WORK, run_stage

REMOTE = ("mathjax_url", "jquery_url", "require_js_url", "widget_renderer_url", "mermaid_js_url")


def main() -> None:
    """Write reports/html/NAME.html for each notebook, and index.html, which links them."""
    settings = load_settings()
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # each waits for a Python process of its own
        pages = pool.map(lambda name: render(name, settings), settings.reports)
        for _ in tqdm(pages, "reports", len(settings.reports), disable=None):
            pass
    save_text(HTML / "index.html", front_page(settings))
    for path in set(HTML.glob("*.html")) - {HTML / f"{name}.html" for name in (*settings.reports, "index")}:
        path.unlink()  # of reports that are no more


def render(name: str, settings: Settings) -> None:
    """Execute a notebook with the datasets and variants of params.yaml, and write its page."""
    notebook = NOTEBOOKS / f"{name}.ipynb"
    parameters = {"datasets": settings.datasets, "variants": settings.variants}
    unknown = parameters.keys() - papermill.inspect_notebook(str(notebook)).keys()
    if unknown:  # papermill only warns
        raise BlaError(
            f"{notebook}: has no parameter {', '.join(sorted(unknown))}; add it to the cell tagged parameters"
        )
    WORK.mkdir(exist_ok=True)
    executed = WORK / f"{name}.ipynb"
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
    save_text(HTML / f"{name}.html", to_html(page, name))


def to_html(page: nbformat.NotebookNode, name: str) -> str:
    """The notebook as one page without code, times, random ids, or anything that must be fetched."""
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


if __name__ == "__main__":
    run_stage(main)
