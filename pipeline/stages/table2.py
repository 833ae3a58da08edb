"""Stage `table2`: rank correlations of all runs' maps with LIME's, in reports/tables/ and data/table2/."""

from dataclasses import asdict

import pandas as pd
from safetensors.numpy import save_file

from bla.base.atomic import replacing, save_text
from bla.base.paper import image_departures, lime_departures, variant_departures
from bla.experiments.runs import with_titles
from bla.experiments.table2.tables import correlations_with_lime, markdown, table_two, table_two_tests, titles
from bla.explainers.posthoc.lime import LIME
from pipeline.artifacts.arrays import load_arrays
from pipeline.artifacts.evaluation import load_runs
from pipeline.artifacts.maps import LIME_MAPS, MAPS, TABLE_TWO, load_maps
from pipeline.artifacts.tables import PUBLISHED, TABLES, load_table, save_table
from pipeline.run.entries import dataset_departures
from pipeline.run.methods import method_settings
from pipeline.run.settings import load_settings


def main() -> None:
    """Write table2.csv, .md and _tests.csv, and for each dataset the correlation of every run and image, `[R, M]`."""
    settings = load_settings()
    correlations, datasets = {}, [name for name in settings.datasets if name not in settings.faithfulness.left_out]
    for dataset in datasets:
        lime = load_arrays(LIME_MAPS / f"{dataset}.safetensors")
        arrays = load_maps(MAPS / f"{dataset}.safetensors", "maps", dataset, lime["images"])
        maps = {name.removeprefix("runs/"): values for name, values in arrays.items() if name.startswith("runs/")}
        order = ["cam", "grad_cam", *(n for key in settings.variants for n in (key, f"{key}_after_threshold"))]
        methods = {"lime": lime["maps_again"]} | {name: maps[name] for name in order if name in maps}
        correlations[dataset] = correlations_with_lime(lime["maps"], methods)
        with replacing(TABLE_TWO / f"{dataset}.safetensors") as part:
            save_file(correlations[dataset], part)
    methods_table = pd.concat([load_table(MAPS / f"{name}.csv") for name in datasets])
    shown = titles(dict(zip(methods_table["method"], methods_table["title"], strict=True)), settings.variants)
    kinds = {name: settings.dataset[name].images.kind for name in datasets}
    rule = settings.faithfulness.constant_maps
    of_lime = lime_departures(asdict(method_settings(settings, "lime", LIME.Settings)))
    departing = {}
    for name, methods in correlations.items():
        images = int(load_runs(name, ["bl"])["n_images"].iloc[0])
        fewer = image_departures(max(rho.shape[1] for rho in methods.values()), images)
        departing[name] = [*dataset_departures(settings, name), *of_lime, *fewer]
    published, of_variants = load_table(PUBLISHED), variant_departures(settings.variant)
    table = table_two(correlations, kinds, published, rule, departing, of_variants)
    save_table(TABLES / "table2.csv", with_titles(table, shown))
    save_table(TABLES / "table2_tests.csv", with_titles(table_two_tests(correlations, rule), shown))
    save_text(TABLES / "table2.md", markdown(table, shown, rule))
