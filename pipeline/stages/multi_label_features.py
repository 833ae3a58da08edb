"""Stage `multi_label_features@DATASET`: the backbone's weights, and its feature maps of all images."""

from pathlib import Path

from bla.datasets import SPLITS
from bla.networks.backbones import load_backbone
from bla.networks.extraction import fill_features
from bla.networks.folding import fold_batch_norm
from bla.networks.patches import batch_size_for
from bla.runtime.cache import cache_key, resume_store, settle_store
from bla.runtime.seeds import derive_seed
from pipeline.artifacts.backbone_weights import save_backbone
from pipeline.artifacts.multi_label import BACKBONES, FEATURES, load_pictures, picture_files
from pipeline.run.environment import WORK, choose_device
from pipeline.run.settings import load_settings


def main(dataset: str) -> None:
    """Write models/multi_label/backbones/DATASET.safetensors, and `{train,test}_features.npy` `[D, N, h, w, C]`."""
    settings, device = load_settings(), choose_device()
    entry, weights = settings.dataset[dataset], BACKBONES / f"{dataset}.safetensors"
    save_backbone(weights, entry)
    images = {split: load_pictures(dataset, split).images for split in SPLITS}
    _, height, width, _ = images["test"].shape
    extractor = fold_batch_norm(load_backbone(entry.backbone, weights, (height, width)))
    seeds = [derive_seed(settings.seed, dataset, "stochastic depth", draw) for draw in range(entry.backbone.draws)]
    key_settings = [entry.backbone, seeds, str(device), batch_size_for(device, (height, width))]
    key = cache_key([Path(__file__)], key_settings, [*picture_files(dataset), weights])
    for split in SPLITS:
        store = resume_store(WORK, f"multi-label-features-{dataset}-{split}", key)
        draws = seeds if split == "train" and entry.backbone.stochastic_depth else []
        fill_features(store, extractor, images[split], device, draws, f"{dataset} {split}", True)
        settle_store(store, {"features": FEATURES / dataset / f"{split}_features.npy"})
