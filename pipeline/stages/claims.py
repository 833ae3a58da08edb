"""Stage `claims`: every claim of the paper, and ours, with its answer, in reports/tables/."""

from dataclasses import asdict

import pandas as pd

from bla.base.atomic import save_text
from bla.base.paper import (
    abandoned_departures,
    lime_departures,
    small_cnn_departures,
    two_network_l2x_departures,
    variant_departures,
)
from bla.claims.judge import judge_claims
from bla.claims.register import Evidence
from bla.claims.rules import Dataset
from bla.explainers.posthoc.lime import LIME
from bla.runtime.seeds import derive_seed
from pipeline.artifacts.arrays import load_arrays
from pipeline.artifacts.evaluation import load_columns, load_runs
from pipeline.artifacts.maps import TABLE_TWO
from pipeline.artifacts.tables import PUBLISHED, TABLES, load_table, save_table
from pipeline.run.entries import dataset_departures
from pipeline.run.methods import method_settings
from pipeline.run.settings import Settings, load_settings


def main() -> None:
    """Write claims.csv and claims.md."""
    settings = load_settings()
    statistics, alpha = settings.statistics, {"alpha": settings.statistics.alpha}
    l2x = load_table(TABLES / "two_network_l2x_runs.csv")
    entries = {str(name): settings.dataset[str(name)] for name in dict.fromkeys(l2x["dataset"])}
    small, l2x_settings = settings.small_cnn.model_dump(), settings.two_network_l2x.model_dump()
    l2x_settings |= l2x_settings["training"]
    evidence = Evidence(
        [_dataset(settings, name) for name in settings.datasets],
        load_table(TABLES / "small_cnn_runs.csv"),
        small_cnn_departures(small | small["module"] | small["training"] | alpha),
        load_table(TABLES / "abandoned_modules_runs.csv"),
        abandoned_departures(settings.abandoned_modules.variants),
        l2x,
        {name: two_network_l2x_departures(of.images, of.backbone, l2x_settings) for name, of in entries.items()},
        load_table(TABLES / "subset_selection_runs.csv"),
        load_table(TABLES / "agreement.csv"),
        load_table(TABLES / "user_study_tests.csv"),
        {name: entry.images.kind for name, entry in settings.dataset.items()},
        load_table(PUBLISHED),
        statistics.alpha,
        statistics.resamples,
        derive_seed(settings.seed, "claims"),
    )
    claims = judge_claims(evidence)
    save_table(TABLES / "claims.csv", claims)
    shown = claims.assign(p=["" if pd.isna(p) else f"{p:.2g}" for p in claims["p"]])
    save_text(TABLES / "claims.md", shown.to_markdown(index=False, disable_numparse=True) + "\n")
    print(claims.groupby(["holds_here", "verdict"]).size().to_string())


def _dataset(settings: Settings, name: str) -> Dataset:
    keys = ["bl", *settings.variants, "bl_plus"]
    return Dataset(
        name,
        settings.dataset[name].images.kind,
        int(load_runs(name, ["bl"])["n_classes"].iloc[0]),
        load_columns(name, keys),
        dataset_departures(settings, name),
        variant_departures(settings.variant),
        {} if name in settings.faithfulness.left_out else load_arrays(TABLE_TWO / f"{name}.safetensors"),
        lime_departures(asdict(method_settings(settings, "lime", LIME.Settings))),
    )
