"""Stage `comparison`: Table 2 and the faithfulness of every method, with their tests, in reports/tables/."""

import gzip
from dataclasses import asdict

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from safetensors.numpy import load_file

from bla.experiments.faithfulness.tables import summary, table_two, table_two_layout, table_two_tests, tests
from bla.metrics import METRICS
from bla.runtime.seeds import derive_seed
from pipeline.artifacts.files import replacing, save_table, save_text
from pipeline.artifacts.paths import FAITHFULNESS, MAPS, PUBLISHED, TABLES
from pipeline.run.settings import load_settings
from pipeline.run.stage import run_stage

AGAINST = ("random", "bla_t")
"""The control that every method must beat, and the paper's method."""


def main() -> None:
    """Write table2.csv, .md and _tests.csv, faithfulness.csv, _tests.csv, _metrics.csv (what each metric is) and _per_image.csv.gz."""
    settings = load_settings()
    methods = pd.concat([pd.read_csv(MAPS / f"{name}.csv").assign(dataset=name) for name in settings.datasets])
    titles = dict(zip(methods["method"], methods["title"], strict=True))
    titles |= {f"{key}, after the threshold": f"{titles[key]} (after threshold)" for key in settings.variants}
    titles["mask"] = "object mask"
    in_table_two = titles | {"lime": "LIME again"}
    correlations = {name: _correlations(name, settings.variants) for name in settings.datasets}
    kinds = {name: settings.dataset[name].images.kind for name in settings.datasets}
    rule, resamples = settings.faithfulness.constant_maps, settings.statistics.resamples
    table = table_two(correlations, kinds, pd.read_csv(PUBLISHED), rule)
    save_table(TABLES / "table2.csv", _titled(table, in_table_two))
    seed = derive_seed(settings.seed, "bootstrap", "table2")
    save_table(TABLES / "table2_tests.csv", _titled(table_two_tests(correlations, rule, resamples, seed), in_table_two))
    note = (
        "Spearman's ρ with LIME's map of the baseline, mean ± standard error over images of the mean over runs. LIME again: "
        "LIME with other random patterns, the ceiling. Constant maps: "
        + ("ρ = 0." if rule == "zero" else "left out.")
        + " Maps are q before the threshold unless it says after. table2_tests.csv has every method against CAM."
    )
    layout = table_two_layout(table, in_table_two).to_markdown(index=False, disable_numparse=True)
    save_text(TABLES / "table2.md", f"{layout}\n\n{note}\n")

    per_image = pd.concat([pd.read_csv(FAITHFULNESS / name / "per_image.csv") for name in settings.datasets])
    text = per_image.to_csv(index=False, float_format="%.6g", lineterminator="\n")
    with replacing(TABLES / "faithfulness_per_image.csv.gz") as part:
        part.write_bytes(gzip.compress(text.encode(), mtime=0))  # no date, so that equal tables are equal bytes
    save_table(TABLES / "faithfulness.csv", _titled(summary(per_image), titles))
    save_table(TABLES / "faithfulness_tests.csv", _titled(tests(per_image, AGAINST), titles))
    save_table(TABLES / "faithfulness_metrics.csv", pd.DataFrame([asdict(metric) for metric in METRICS]))


def _titled(table: pd.DataFrame, titles: dict[str, str]) -> pd.DataFrame:
    """The table with the methods' titles behind their names."""
    table.insert(list(table.columns).index("method") + 1, "title", table["method"].map(titles))
    return table


def _correlations(dataset: str, variants: list[str]) -> dict[str, NDArray[np.float64]]:
    """Rank correlations with LIME in the order of Table 2: the ceiling, CAM, then the variants."""
    found = load_file(FAITHFULNESS / dataset / "rank_correlation.safetensors")
    order = ["lime", "cam", "grad_cam", *(name for key in variants for name in (key, f"{key}, after the threshold"))]
    return {name: found[name] for name in order if name in found}


if __name__ == "__main__":
    run_stage(main)
