"""Stage `reports`: notebooks executed by papermill, and a front page, as HTML for offline reading in reports/html/."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from bla.base.atomic import save_text
from bla.report.front_page import front_page
from bla.report.notebooks import render
from pipeline.artifacts.figures import FIGURES
from pipeline.artifacts.tables import TABLES, load_table
from pipeline.run.environment import WORK
from pipeline.run.settings import load_settings

NOTEBOOKS = Path("reports/notebooks")
HTML = Path("reports/html")


def main() -> None:
    """Write reports/html/NAME.html for each notebook, and index.html, which links them."""
    settings = load_settings()
    parameters = {"datasets": settings.datasets, "variants": settings.variants}

    def write(name: str) -> None:
        save_text(HTML / f"{name}.html", render(NOTEBOOKS / f"{name}.ipynb", parameters, WORK, settings.reports))

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # each waits for its own Python process
        for _ in tqdm(pool.map(write, settings.reports), "reports", len(settings.reports), disable=None):
            pass
    table1, table2, answers = (
        load_table(TABLES / f"{name}.csv") for name in ("table1", "table2", "what_the_method_does")
    )
    texts = dict.fromkeys(("text", "dataset", "ours", "test", "holds_here", "verdict", "reason"), str)
    claims = load_table(TABLES / "claims.csv", dtype=texts).fillna(dict.fromkeys(texts, ""))
    pictures = {"overview": FIGURES / f"overview_{settings.datasets[0]}.png"}
    pictures |= {name: FIGURES / f"{name}.png" for name in ("table1", "figure3")}
    parts = table1, table2, claims, answers, pictures, settings.reports
    save_text(HTML / "index.html", front_page(*parts, settings.statistics.alpha, settings.faithfulness.run))
    for path in set(HTML.glob("*.html")) - {HTML / f"{name}.html" for name in (*settings.reports, "index")}:
        path.unlink()  # of reports that are no longer rendered
