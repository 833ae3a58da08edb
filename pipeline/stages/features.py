"""Stage `features@DATASET`: the extractor's feature maps, once for all trainings, in data/features/DATASET/."""

import hashlib
from collections.abc import Iterator
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from bla.base.errors import BlaError
from bla.base.specs import Backbone
from bla.networks import backbones
from bla.networks.backbones import batch_size_for, extract, fold_batch_norm, load_backbone
from bla.runtime.seeds import derive_seed
from pipeline.artifacts.files import fill_store, load_array, resume_store, save_array, settle_store
from pipeline.artifacts.paths import BACKBONES, FEATURES, IMAGES
from pipeline.run.settings import load_settings
from pipeline.run.stage import choose_device, run_stage


def main(dataset: str) -> None:
    """Write `train_features.npy` `[D, N, n, C]`, `test_features.npy` `[N, n, C]`, both half precision, and the labels."""
    settings = load_settings()
    stores = fill_features(dataset, settings.dataset[dataset].backbone, settings.seed, "features")
    for split, store in stores.items():
        settle_store(store, {"features": FEATURES / dataset / f"{split}_features.npy"})
        save_array(FEATURES / dataset / f"{split}_labels.npy", load_array(IMAGES / dataset / f"{split}_labels.npy"))
    shape = load_array(FEATURES / dataset / "train_features.npy").shape
    precision = "half precision (autocast)" if choose_device().type == "cuda" else "single precision"
    print(
        f"{dataset}: {shape[2]} cells of {shape[3]} channels in {precision}, {shape[0]} draws of the training features"
    )


def fill_features(dataset: str, backbone: Backbone, seed: int, name: str) -> dict[str, Path]:
    """Extract the features of both splits to stores called `name` (`features.npy` in each).

    Goes on where a killed stage was.
    """
    device, weights = choose_device(), BACKBONES / f"{dataset}.safetensors"
    images = {split: load_array(IMAGES / dataset / f"{split}_images.npy") for split in ("train", "test")}
    extractor = fold_batch_norm(load_backbone(backbone, weights, images["train"].shape[1]))
    _, cells, channels = extractor(torch.from_numpy(images["train"][[0]])).shape
    seeds = [derive_seed(seed, dataset, "stochastic depth", draw) for draw in range(backbone.draws)]

    manifest = (IMAGES / dataset / "manifest.csv").read_bytes() + weights.read_bytes()
    told: list[object] = [hashlib.sha256(manifest).hexdigest(), asdict(backbone), seeds, str(device)]
    # The manifest says which files were read, not how they were resized.
    told += [(IMAGES / dataset / f"{split}_images.npy").stat().st_mtime_ns for split in images]
    told += [
        batch_size_for(device, images["train"].shape[1]),
        images["train"].shape,
        Path(backbones.__file__).read_text(),
        torch.__version__,
        version("timm"),
    ]
    stores = {split: resume_store(f"{name}-{dataset}-{split}", told) for split in images}
    for split, store in stores.items():
        count = len(images[split])
        # Evaluation features are clean: the authors' code drops nothing when it predicts.
        draws = seeds if split == "train" and backbone.stochastic_depth else []
        rows = count * max(1, len(draws))
        shape = (backbone.draws, count, cells, channels) if split == "train" else (count, cells, channels)

        def chunks(start: int, split: str = split, draws: list[int] = draws, rows: int = rows) -> Iterator[Any]:
            with tqdm(total=rows, initial=start, desc=f"{dataset} {split} features", unit="img", disable=None) as bar:
                for part in extract(extractor, images[split], device, draws, start):
                    yield [part], []
                    bar.update(len(part))

        try:
            fill_store(store, {"features": (shape, "float16")}, rows, chunks)
        except BlaError as error:
            raise BlaError(f"{dataset}, {split}: {error}") from error
    return stores


if __name__ == "__main__":
    run_stage(main)
