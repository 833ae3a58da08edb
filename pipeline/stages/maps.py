"""Stage `maps@DATASET`: the maps of every explanation method on some test images, in data/maps/.

And once more where the image is noisy or the classifier random. Each method's maps are cached, so that a further method costs
no other anything.
"""

import numpy as np
import pandas as pd
import torch
from safetensors.numpy import save_file
from tqdm import tqdm

from bla.base.atomic import replacing
from bla.explainers.all_maps import maps_of_all_runs
from pipeline.artifacts.features import load_features
from pipeline.artifacts.maps import MAPS
from pipeline.artifacts.models import load_head, load_variant
from pipeline.artifacts.tables import save_table
from pipeline.run.method_maps import MapMaker
from pipeline.run.settings import load_settings


def main(dataset: str) -> None:
    """Write DATASET.safetensors, maps `[M, n]` (NaN for an image that was left out), and DATASET.csv, a row a method.

    `maps/METHOD`; `noise/METHOD`, of the noisy images; `random/METHOD` `[L, M, n]`, of classifiers that are random down to
    each level of the cascade; `retrained/VARIANT` `[2, M, n]`, of modules trained on the first and the last of those;
    `runs/METHOD` `[R, M, n]`, Table 2's maps of all runs, from the cached features.
    """
    settings = load_settings()
    maker = MapMaker(dataset, settings)
    arrays = {"images": maker.numbers, "targets": maker.targets.numpy()}
    rows: list[dict[str, object]] = []
    for method in (bar := tqdm(list(maker.methods()), unit="method", disable=None)):
        bar.set_description(f"{dataset} maps, {method.name}")
        maps = maker.maps(method)
        if method.variant:
            arrays[f"retrained/{method.name}"] = maker.retrained(method)["maps"]
        built, forwards = method.build(maker.model), maps.pop("forwards").item()
        arrays |= {f"{kind}/{method.name}": values for kind, values in maps.items()}
        row: dict[str, object] = {"method": method.name, "title": method.title(built), "learned": built.learned}
        row |= {"control": built.control, "slow": built.slow, "forwards": forwards, "backwards": built.backwards}
        rows.append(row)

    features = load_features(dataset, "test")[0][torch.from_numpy(maker.numbers)].float().to(maker.device)
    variants = {key: load_variant(dataset, key, settings) for key in settings.variants}
    modules = {key: (spec, module.to(maker.device)) for key, (spec, _, module) in variants.items()}
    targets = torch.from_numpy(maker.lime["targets"]).to(maker.device)
    runs = maps_of_all_runs(features, load_head(dataset).weight.to(maker.device), targets, modules)
    arrays |= {f"runs/{name}": np.ascontiguousarray(values) for name, values in runs.items()}
    with replacing(MAPS / f"{dataset}.safetensors") as part:
        save_file(arrays, part, {"levels": "\n".join(maker.levels())})
    save_table(MAPS / f"{dataset}.csv", pd.DataFrame(rows))
    slow = maker.explained.slow.sum()
    print(f"{dataset}: maps of {len(rows)} methods on {len(maker.targets)} images, of slow ones on {slow}")
