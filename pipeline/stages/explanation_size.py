"""Stage `sizes`: how many cells explanations keep, by image and class, and beside confidence, in reports/tables/ and a figure."""

import pandas as pd
from safetensors.torch import load_file
from tqdm import tqdm

from bla.base.specs import BoundedLogits
from bla.experiments.explanation_size.figures import sizes as draw
from bla.experiments.explanation_size.tables import confidences, per_bin, per_class, per_run, relations
from bla.method.modules import Head, Module
from bla.plotting.figures import save_figure
from bla.runtime.seeds import derive_seed
from pipeline.artifacts.files import replacing, save_table
from pipeline.artifacts.paths import EXPLAINERS, FIGURES, IMAGES, TABLES
from pipeline.artifacts.runs import load_column, load_features
from pipeline.run.settings import load_settings
from pipeline.run.stage import choose_device, run_stage


def main() -> None:
    """Write sizes_runs.csv, sizes_classes.csv, sizes_bins.csv, sizes.csv (tests over runs) and figures/sizes.png.

    Of the variants with bounded logits; L2X-F always keeps k cells.
    """
    settings = load_settings()
    varying = {key: v for key in settings.variants if isinstance(v := settings.variant[key], BoundedLogits)}
    tables: dict[str, list[pd.DataFrame]] = {"runs": [], "classes": [], "bins": []}
    pairs = [(dataset, key) for dataset in settings.datasets for key in varying]
    for dataset, key in tqdm(pairs, "sizes", unit="column", disable=None):
        features, labels = (part.to(choose_device()) for part in load_features(dataset, "test"))
        arrays = {name: value.to(features.device) for name, value in load_file(EXPLAINERS / dataset / f"{key}.safetensors").items()}  # fmt: skip
        head = Head(arrays["head.weight"], arrays["head.bias"])
        module = Module(arrays["module.weight"], arrays["module.bias"])
        confidence, column, of = confidences(features, varying[key], head, module), load_column(dataset, key), labels.cpu().numpy()  # fmt: skip
        assert column.size is not None
        names = pd.read_csv(IMAGES / dataset / "classes.csv", dtype=str, keep_default_na=False)["name"].tolist()
        made = (
            per_run(column.size, confidence, column.correct, of),
            per_class(column.size, of, names),
            per_bin(column.size, confidence, column.correct, features.shape[1]),
        )
        for rows, table in zip(tables.values(), made, strict=True):
            rows.append(table.assign(dataset=dataset, variant=key))
    front = ["dataset", "variant"]
    whole = {name: pd.concat(rows) if rows else pd.DataFrame(columns=front) for name, rows in tables.items()}
    for name, table in whole.items():
        save_table(TABLES / f"sizes_{name}.csv", table[[*front, *(c for c in table if c not in front)]])
    related = relations(whole["runs"], settings.statistics.resamples, derive_seed(settings.seed, "sizes"))
    save_table(TABLES / "sizes.csv", related)
    with replacing(FIGURES / "sizes.png") as part:
        save_figure(draw(whole["bins"], whole["classes"]), part, "png")
    print(related[[*front, "quantity", "mean", "p_holm"]].to_string(index=False))


if __name__ == "__main__":
    run_stage(main)
