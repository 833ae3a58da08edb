"""Extraction of features to a resumable store."""

from pathlib import Path

from bla.base.specs import Backbone
from bla.datasets import SPLITS
from bla.networks.backbones import load_backbone
from bla.networks.extraction import fill_features
from bla.networks.folding import fold_batch_norm
from bla.networks.patches import batch_size_for
from bla.runtime.cache import cache_key, resume_store
from bla.runtime.seeds import derive_seed
from pipeline.artifacts.images import prepared_files, some_images
from pipeline.artifacts.models import BACKBONES
from pipeline.run.environment import WORK, choose_device


def extract_features(
    dataset: str, backbone: Backbone, seed: int, name: str, stage: Path, at_most: int | None = None
) -> dict[str, Path]:
    """Fill a store per split with its features, `features.npy`; returns the stores by split.

    The names of their folders start with `name`; `stage` is the source file of the calling stage. `at_most` limits the
    number of images of a split (`some_images`).
    """
    device, weights = choose_device(), BACKBONES / f"{dataset}.safetensors"
    images = {split: some_images(dataset, split, at_most)[1] for split in SPLITS}
    _, height, width, _ = images["train"].shape
    extractor = fold_batch_norm(load_backbone(backbone, weights, (height, width)))
    seeds = [derive_seed(seed, dataset, "stochastic depth", draw) for draw in range(backbone.draws)]
    settings = [backbone, seeds, str(device), batch_size_for(device, (height, width)), at_most]
    key = cache_key([stage], settings, [*prepared_files(dataset), weights])
    stores: dict[str, Path] = {}
    for split in SPLITS:
        stores[split] = store = resume_store(WORK, f"{name}-{dataset}-{split}", key)
        # Evaluation features are clean: the authors' code has no stochastic depth in prediction.
        draws = seeds if split == "train" and backbone.stochastic_depth else []
        fill_features(store, extractor, images[split], device, draws, f"{dataset} {split}", split == "train")
    return stores
