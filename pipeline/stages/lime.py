"""Stage `lime@DATASET`: LIME maps of the baseline classifiers on some test images, in data/lime/DATASET.safetensors."""

import inspect
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from tqdm import tqdm

from bla.explainers.posthoc.lime import LIME
from bla.runtime.seeds import derive_seed
from pipeline.artifacts.explained_images import load_explained, predicted_classes, told_of
from pipeline.artifacts.files import fill_store, load_array, replacing, resume_store
from pipeline.artifacts.paths import LIME_MAPS
from pipeline.run.settings import load_settings
from pipeline.run.stage import run_stage

TWICE = ("maps", "maps_again")
"""LIME with patterns of its own each time: how far it agrees with itself is the ceiling for any other method."""
CHUNK = 4
"""Images between two points from which a killed stage goes on."""


def main(dataset: str) -> None:
    """Write the images' numbers `images` `[M]`, the predicted classes `targets` `[R, M]`, both maps `[R, M, n]`."""
    settings = load_settings()
    spec = settings.explainer.lime
    explained = load_explained(dataset, settings)
    targets, runs, count = predicted_classes(explained), len(explained.classifier.head_weight), len(explained.images)
    method = LIME(explained.classifier, spec.patterns, spec.presence, spec.output)
    seeds = torch.tensor(
        [lime_seeds(settings.seed, dataset, name, spec.patterns_of, explained.numbers) for name in TWICE]
    )
    told = [
        *told_of(explained, dataset, settings),
        asdict(spec),
        seeds.tolist(),
        Path(inspect.getfile(LIME)).read_text(),
    ]

    def chunks(start: int) -> Iterator[tuple[list[Any], list[Any]]]:
        with tqdm(total=count, initial=start, desc=f"{dataset} LIME", unit="img", disable=None) as bar:
            for part in torch.arange(start, count).split(CHUNK):
                maps = [method.explain_runs(explained.images[part], targets[:, part], own[part]) for own in seeds]
                yield [torch.stack(maps).movedim(2, 0).flatten(3).cpu().numpy()], []
                bar.update(len(part))

    cells = method.grid(explained.images) ** 2
    store = resume_store(f"lime-{dataset}", told)
    fill_store(store, {"maps": ((count, len(TWICE), runs, cells), np.float64)}, count, chunks)
    maps = torch.from_numpy(np.array(load_array(store / "maps.npy"))).permute(1, 2, 0, 3)
    arrays = {"images": torch.from_numpy(explained.numbers), "targets": targets.cpu()}
    with replacing(LIME_MAPS / f"{dataset}.safetensors") as part:
        save_file(arrays | {name: own.contiguous() for name, own in zip(TWICE, maps, strict=True)}, part)
    shutil.rmtree(store)
    print(f"{dataset}: LIME with {spec.patterns} patterns, twice, on {count} images for {runs} heads")


def lime_seeds(seed: int, dataset: str, name: str, patterns_of: str, numbers: "np.ndarray[Any, Any]") -> list[int]:
    """The seed of each image's patterns: one for all where the dataset shares them."""
    whose = ["dataset"] * len(numbers) if patterns_of == "dataset" else numbers.tolist()
    return [derive_seed(seed, dataset, "lime", name, who) for who in whose]


if __name__ == "__main__":
    run_stage(main)
