"""Stage `features@DATASET`: the extractor's feature maps, once for all trainings, in data/features/DATASET/."""

from pathlib import Path

from bla.base.atomic import save_array
from bla.runtime.cache import settle_store
from pipeline.artifacts.arrays import load_array
from pipeline.artifacts.extraction import extract_features
from pipeline.artifacts.features import FEATURES
from pipeline.artifacts.images import load_labels
from pipeline.run.checkpoint_head import checkpoint_head
from pipeline.run.environment import choose_device
from pipeline.run.settings import load_settings


def main(dataset: str) -> None:
    """Write `train_features.npy` `[D, N, h, w, C]`, `test_features.npy` `[N, h, w, C]`, both half precision, and the labels."""
    settings = load_settings()
    entry = settings.dataset[dataset]
    backbone = entry.backbone
    if entry.has_own_head:
        checkpoint_head(dataset, entry.classifier_labels)  # an error now, not after the extraction
    stores = extract_features(dataset, backbone, settings.seed, "features", Path(__file__))
    for split, store in stores.items():
        settle_store(store, {"features": FEATURES / dataset / f"{split}_features.npy"})
        save_array(FEATURES / dataset / f"{split}_labels.npy", load_labels(dataset, split))
    draws, _, rows, columns, channels = load_array(FEATURES / dataset / "train_features.npy").shape
    precision = "half precision (autocast)" if choose_device().type == "cuda" else "single precision"
    print(
        f"{dataset}: {rows} x {columns} cells of {channels} channels in {precision}, {draws} draws of the training features"
    )
