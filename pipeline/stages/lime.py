"""Stage `lime@DATASET`: LIME maps of the baseline classifiers on some test images, in data/lime/DATASET.safetensors."""

import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from tqdm import tqdm

from bla.base.atomic import replacing
from bla.explainers.posthoc.lime import LIME
from bla.runtime.cache import cache_key, fill_store, resume_store
from pipeline.artifacts.arrays import load_array
from pipeline.artifacts.explained_images import explained_classes, key_parts, load_explained
from pipeline.artifacts.maps import LIME_MAPS, lime_seeds
from pipeline.run.environment import WORK
from pipeline.run.methods import method_settings
from pipeline.run.settings import load_settings

TWICE = ("maps", "maps_again")
"""LIME explains some images twice, with different patterns: its agreement with itself is the ceiling for other methods."""
CHUNK = 4
"""Images per checkpoint: a killed stage resumes after the last one."""


def main(dataset: str) -> None:
    """Write the images' numbers `images` `[M]`, the explained classes `targets` `[R, M]`, both maps `[R, M, n]`.

    The second maps are NaN but for the `checked` images. A dataset in `faithfulness.left_out` has NaN alone.
    """
    settings = load_settings()
    spec, explained = method_settings(settings, "lime", LIME.Settings), load_explained(dataset, settings)
    images, targets = explained.images, explained_classes(explained)
    count, runs = len(images), len(targets)
    method = LIME(explained.classifier, spec)
    cells = math.prod(method.grid(images))
    seeds = torch.tensor([lime_seeds(settings.seed, dataset, name, spec.patterns_of, explained.numbers) for name in TWICE])  # fmt: skip
    explains = torch.from_numpy(np.stack([np.full(count, dataset not in settings.faithfulness.left_out), explained.checked]))  # fmt: skip

    def chunks(start: int) -> Iterator[tuple[list[Any], list[Any]]]:
        with tqdm(total=count, initial=start, desc=f"{dataset} LIME", unit="img", disable=None) as bar:
            for part in torch.arange(start, count).split(CHUNK):
                maps = torch.full((len(TWICE), runs, len(part), cells), torch.nan, dtype=torch.float64)
                for of_map, seeds_of_map, which in zip(maps, seeds, explains, strict=True):
                    if len(rows := part[which[part]]):
                        made = method.explain_runs(images[rows], targets[:, rows], seeds_of_map[rows])
                        of_map[:, which[part]] = made.flatten(2).cpu()
                yield [maps.movedim(2, 0).numpy()], []
                bar.update(len(part))

    used, data = key_parts(explained, dataset, settings)
    store = resume_store(WORK, f"lime-{dataset}", cache_key([Path(__file__)], [used, spec, seeds.tolist()], data))
    fill_store(store, {"maps": ((count, len(TWICE), runs, cells), np.float64)}, count, chunks)
    maps = torch.from_numpy(np.array(load_array(store / "maps.npy"))).permute(1, 2, 0, 3)
    arrays = {"images": torch.from_numpy(explained.numbers), "targets": targets.cpu()}
    with replacing(LIME_MAPS / f"{dataset}.safetensors") as part:
        save_file(arrays | {name: values.contiguous() for name, values in zip(TWICE, maps, strict=True)}, part)
    shutil.rmtree(store)
    print(
        f"{dataset}: LIME with {spec.patterns} patterns on {explains[0].sum()} images, twice on {explains[1].sum()}, for {runs} heads"
    )
