"""Stage `what_the_method_does`: a few questions about each dataset, with a test each, in reports/tables/."""

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from bla.base.atomic import save_text
from bla.experiments.what_the_method_does.tables import ANSWERS, answers, overlaps_of, questions
from bla.method.equations import hard_explanation, logits_of
from bla.runtime.seeds import derive_seed
from pipeline.artifacts.coverage import load_coverage
from pipeline.artifacts.evaluation import load_columns
from pipeline.artifacts.features import explained_features, load_grid
from pipeline.artifacts.models import load_variant
from pipeline.artifacts.tables import TABLES, save_table
from pipeline.run.environment import choose_device
from pipeline.run.settings import Settings, load_settings

Overlaps = tuple[NDArray[np.float64], NDArray[np.float64]] | None
SHOWN = ["dataset", "question", "answer", "numbers", "difference", "p_holm", "n_runs", "n_images"]


def main() -> None:
    """Write what_the_method_does.csv and .md."""
    settings, parts = load_settings(), []
    for dataset in settings.datasets:
        columns = load_columns(dataset, ["bl", *settings.variants])
        rows, across = load_grid(dataset)
        asked = questions(columns, rows * across, _overlaps(dataset, settings))
        parts.append(answers(asked, settings.statistics.alpha).assign(dataset=dataset))
    table = pd.concat(parts)[["dataset", *ANSWERS]]
    save_table(TABLES / "what_the_method_does.csv", table)
    shown = (
        table[SHOWN]
        .astype({"numbers": object})
        .fillna({"numbers": ""})
        .astype({"n_runs": "Int64", "n_images": "Int64"})
    )
    shown["difference"] = [
        "" if np.isnan(mean) else f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]"
        for mean, low, high in table[["difference", "low", "high"]].to_numpy(float)
    ]
    shown = shown.astype({"n_runs": "str", "n_images": "str"}).replace("<NA>", "")
    shown["p_holm"] = ["" if pd.isna(p) else f"{p:.2g}" for p in shown["p_holm"]]
    save_text(TABLES / "what_the_method_does.md", shown.to_markdown(index=False, disable_numparse=True) + "\n")
    print(table[["dataset", "question", "answer"]].to_string(index=False))


def _overlaps(dataset: str, settings: Settings) -> Overlaps:
    """The IoU of BLA and of random cells with the object `[R, N]`; None without masks or BLA."""
    coverage = load_coverage(dataset, "test", load_grid(dataset))
    if coverage is None or "bla" not in settings.variants:
        return None
    device = choose_device()
    features = explained_features(dataset).to(device)
    variant, _, module = load_variant(dataset, "bla", settings)
    module = module.to(device)
    with torch.no_grad():
        parts = [hard_explanation(variant, logits_of(variant, module(x.float()))).cpu() for x in features.split(256)]
    seed = derive_seed(settings.seed, dataset, "random cells")
    return overlaps_of(torch.cat(parts, dim=1).numpy(), coverage, seed)
