"""Feature maps of all images in half precision, in data/features/DATASET/, and their labels."""

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.artifacts.arrays import load_tensor

if TYPE_CHECKING:
    import torch
    from torch import Tensor

FEATURES = Path("data/features")


def load_features(dataset: str, split: str, device: "torch.device | None" = None) -> "tuple[Tensor, Tensor]":
    """Features, `[D, N, n, C]` of train, `[N, n, C]` of test, half precision, and labels `[N]`.

    On a device, or memory-mapped without one.
    """
    features, labels = (load_tensor(FEATURES / dataset / f"{split}_{what}.npy") for what in ("features", "labels"))
    return (features, labels) if device is None else (features.to(device), labels.to(device))


def feature_files(dataset: str) -> list[Path]:
    """The features of both splits, whose content decides what is trained on them."""
    return [FEATURES / dataset / f"{split}_features.npy" for split in ("train", "test")]
