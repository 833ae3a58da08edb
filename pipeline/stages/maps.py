"""Stage `maps@DATASET`: the maps of every explanation method on some test images, in data/maps/.

Also the maps for noisy images and random classifiers. Maps are cached per method; a new method leaves the others' cached.
"""

import json
from dataclasses import asdict

import numpy as np
import pandas as pd
import torch
from safetensors.numpy import save_file
from tqdm import tqdm

from bla.base.atomic import replacing, save_text
from bla.explainers.all_maps import maps_of_all_runs
from bla.explainers.interface import Sets
from pipeline.artifacts.features import explained_features
from pipeline.artifacts.maps import MAPS, SECONDS
from pipeline.artifacts.models import load_head, load_variant
from pipeline.artifacts.tables import save_table
from pipeline.maps.image_names import table_of_images
from pipeline.maps.method_maps import MapMaker
from pipeline.run.settings import load_settings


def main(dataset: str) -> None:
    """Write DATASET.safetensors, .json (the sets that methods return), .csv (a row per method), .images.csv (a row per image).

    The time of each method is written to data/seconds/, because everything in data/maps/ is the same in every run.

    `maps/METHOD` `[M, h, w]` at the method's own resolution, NaN for images that it did not explain. As means over the
    n cells: `again/METHOD` `[M, n]`, with other random numbers; `noise/METHOD` `[M, n]`, for noisy images;
    `random/METHOD` `[L, M, n]`, for each level of the cascade of random classifiers; `draws/METHOD` `[D, 2, M, n]`, for
    the first and the last level of D more cascades; `retrained/METHOD` `[2, M, n]`, of learned methods fitted to them;
    `runs/METHOD` `[R, M, n]`, Table 2's maps of all runs, from the cached features.
    """
    settings = load_settings()
    maker = MapMaker(dataset, settings)
    arrays = {"images": maker.numbers, "targets": maker.targets.numpy()}
    rows: list[dict[str, object]] = []
    sets: dict[str, Sets] = {}
    seconds: dict[str, float] = {}
    for method in (bar := tqdm(list(maker.methods()), unit="method", disable=None)):
        bar.set_description(f"{dataset} maps, {method.name}")
        made, kind, (value, constant) = maker.maps(method), method.explainer, maker.objective(method)
        if method.state and maker.can_retrain(method):
            arrays[f"retrained/{method.name}"] = maker.retrained(method)["maps"]
        arrays |= {
            f"{name}/{method.name}": getattr(made, name) for name in ("maps", "again", "noise", "random", "draws")
        }
        seconds[method.name] = made.seconds
        sets |= {method.name: made.sets} if made.sets else {}
        rows.append({"method": method.name, "title": method.title, **method.properties(), "forwards": made.forwards, "backwards": made.backwards, "objective": value, "objective_of_constant": constant} | asdict(kind.card))  # fmt: skip
    runs = _runs(maker, dataset)
    arrays |= {f"runs/{name}": np.ascontiguousarray(values) for name, values in runs.items()}
    with replacing(MAPS / f"{dataset}.safetensors") as part:
        save_file(arrays, part, {"levels": "\n".join(maker.levels())})
    save_text(MAPS / f"{dataset}.json", json.dumps(sets))
    save_table(MAPS / f"{dataset}.csv", pd.DataFrame(rows))
    save_table(MAPS / f"{dataset}.images.csv", table_of_images(dataset, arrays["images"], arrays["targets"]))
    save_table(SECONDS / f"{dataset}.csv", pd.DataFrame(seconds.items(), columns=["method", "seconds"]))
    slow = maker.explained.slow.sum()
    print(f"{dataset}: maps of {len(rows)} methods on {len(maker.targets)} images, of slow methods on {slow}")


def _runs(maker: MapMaker, dataset: str) -> dict[str, np.ndarray]:
    """Table 2's maps of all runs, by method; without CAM if the classifier has no linear head."""
    settings, device = maker.settings, maker.device
    features = explained_features(dataset, maker.numbers).float().to(device)
    variants = {key: load_variant(dataset, key, settings) for key in settings.variants}
    modules = {key: (spec, module.to(device)) for key, (spec, _, module) in variants.items()}
    pooled = settings.dataset[dataset].backbone.tail == "pooled"
    heads = load_head(dataset).weight.to(device) if pooled else None
    return maps_of_all_runs(features, heads, torch.from_numpy(maker.lime["targets"]).to(device), modules)
