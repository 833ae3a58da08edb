"""Feature maps of all images in half precision, `[.., h, w, C]` in data/features/DATASET/, and their labels."""

from pathlib import Path
from typing import TYPE_CHECKING

from bla.base.errors import BlaError
from pipeline.artifacts.arrays import load_array, load_tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor

    from bla.networks.patches import Grid

FEATURES = Path("data/features")


def load_features(dataset: str, split: str, device: "torch.device | None" = None) -> "tuple[Tensor, Tensor]":
    """Half-precision features, train `[D, N, n, C]`, test `[N, n, C]`, and labels `[N]` or multi-hot `[N, K]`.

    They are on `device`, or memory-mapped if it is None. Training and evaluation look for NaN only if a loss is not finite,
    since a file may be larger than memory; what explains test images uses `explained_features`.
    """
    maps, labels = (load_tensor(FEATURES / dataset / f"{split}_{what}.npy") for what in ("features", "labels"))
    features = maps.flatten(-3, -2)
    return (features, labels) if device is None else (features.to(device), labels.to(device))


def explained_features(dataset: str, numbers: "Sequence[int] | NDArray[np.int64] | None" = None) -> "Tensor":
    """Half-precision features `[M, n, C]` of these test images, or of all, memory-mapped.

    BlaError, which names the file and its images, if any feature of the file is not finite; it reads 512 images at a time.
    """
    import torch

    from bla.method.finite import refuse_not_finite

    features = load_features(dataset, "test")[0]
    try:
        refuse_not_finite(features[None], "explained images")
    except BlaError as error:
        raise BlaError(f"{FEATURES / dataset / 'test_features.npy'}: {error}") from error
    return features if numbers is None else features[torch.as_tensor(numbers)]


def load_grid(dataset: str) -> "Grid":
    """Rows and columns of the feature map."""
    rows, columns = load_array(FEATURES / dataset / "test_features.npy").shape[1:3]
    return rows, columns


def feature_files(dataset: str) -> list[Path]:
    """The files of the features of both splits, for cache keys."""
    return [FEATURES / dataset / f"{split}_features.npy" for split in ("train", "test")]
