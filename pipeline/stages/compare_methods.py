"""Stage `compare_methods`: the faithfulness of every method, with its tests, in reports/tables/."""

import gzip
from dataclasses import asdict

import pandas as pd

from bla.base.atomic import replacing
from bla.experiments.faithfulness.tables import (
    AGAINST,
    answerable,
    beaten_by_controls,
    differences,
    objectives,
    summary,
    tests,
    with_seconds,
)
from bla.experiments.runs import mark_untrained, with_titles
from bla.metrics import METRICS
from pipeline.artifacts.maps import FAITHFULNESS, MAPS, SECONDS
from pipeline.artifacts.tables import TABLES, load_table, save_table, untrained_methods
from pipeline.run.settings import load_settings

CARD = ("sentence", "source", "needs", "cost", "proof")
"""The fields of a method's card."""


def main() -> None:
    """Write faithfulness.csv and more tables of that name: _tests, _differences (do the methods differ at all?),
    _methods and _metrics (descriptions), _randomisation, _parts (effects of painted parts), _controls (which methods are
    worse than a control), _objectives (of learned methods, and whether they trained), _per_image (compressed)."""
    settings = load_settings()
    methods = pd.concat([load_table(MAPS / f"{name}.csv").assign(dataset=name) for name in settings.datasets])
    titles = dict(zip(methods["method"], methods["title"], strict=True)) | {"mask": "object mask"}
    cards = methods.drop_duplicates("method")[["method", "title", *CARD]]
    per_image = pd.concat([load_table(FAITHFULNESS / name / "per_image.csv") for name in settings.datasets])
    text = per_image.to_csv(index=False, float_format="%.6g", lineterminator="\n")
    with replacing(TABLES / "faithfulness_per_image.csv.gz") as part:
        part.write_bytes(gzip.compress(text.encode(), mtime=0))  # no date, so that equal tables have equal bytes
    seconds = pd.concat([load_table(SECONDS / f"{name}.csv").assign(dataset=name) for name in settings.datasets])
    per_image = with_seconds(per_image, seconds)
    save_table(TABLES / "faithfulness_objectives.csv", objectives(methods))
    untrained = untrained_methods()
    means = mark_untrained(with_titles(summary(per_image, untrained), titles), untrained)
    save_table(TABLES / "faithfulness.csv", means)
    compared = tests(per_image, AGAINST)
    alpha = settings.statistics.alpha
    save_table(TABLES / "faithfulness_controls.csv", beaten_by_controls(compared, titles, alpha))
    save_table(TABLES / "faithfulness_tests.csv", with_titles(answerable(compared, alpha), titles))
    save_table(TABLES / "faithfulness_differences.csv", differences(per_image, compared, untrained))
    save_table(TABLES / "faithfulness_methods.csv", cards)
    cascade = pd.concat([load_table(FAITHFULNESS / name / "randomisation.csv") for name in settings.datasets])
    save_table(TABLES / "faithfulness_randomisation.csv", with_titles(cascade, titles))
    parts = pd.concat([load_table(FAITHFULNESS / name / "parts.csv") for name in settings.datasets])
    save_table(TABLES / "faithfulness_parts.csv", parts)
    save_table(TABLES / "faithfulness_metrics.csv", pd.DataFrame([asdict(metric) for metric in METRICS]))
