"""Feature maps of all images in half precision, `[.., h, w, C]` in data/features/DATASET/, and their labels."""

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.artifacts.arrays import load_array, load_tensor

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from bla.networks.patches import Grid

FEATURES = Path("data/features")


def load_features(dataset: str, split: str, device: "torch.device | None" = None) -> "tuple[Tensor, Tensor]":
    """Half-precision features, train `[D, N, n, C]`, test `[N, n, C]`, and labels `[N]` or multi-hot `[N, K]`.

    They are on `device`, or memory-mapped if it is None.
    """
    maps, labels = (load_tensor(FEATURES / dataset / f"{split}_{what}.npy") for what in ("features", "labels"))
    features = maps.flatten(-3, -2)
    return (features, labels) if device is None else (features.to(device), labels.to(device))


def load_grid(dataset: str) -> "Grid":
    """Rows and columns of the feature map."""
    rows, columns = load_array(FEATURES / dataset / "test_features.npy").shape[1:3]
    return rows, columns


def feature_files(dataset: str) -> list[Path]:
    """The files of the features of both splits, for cache keys."""
    return [FEATURES / dataset / f"{split}_features.npy" for split in ("train", "test")]
