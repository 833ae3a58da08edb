"""Files of the datasets with several classes an image, in data/multi_label/ and models/multi_label/.

They have folders of their own, so that no stage of the single-label datasets depends on them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file
from torch import Tensor

from bla.base.atomic import replacing
from bla.base.errors import BlaError
from bla.explainers.interface import TrainingData
from bla.method.modules import Head
from bla.networks.backbones import load_backbone
from bla.networks.classifier import Classifier
from bla.networks.folding import fold_batch_norm
from pipeline.artifacts.arrays import load_array, load_arrays, load_tensor, refuse_nan
from pipeline.artifacts.tables import load_table
from pipeline.run.environment import choose_device
from pipeline.run.settings import Settings

IMAGES, FEATURES = Path("data/multi_label/images"), Path("data/multi_label/features")
BACKBONES, HEADS = Path("models/multi_label/backbones"), Path("models/multi_label/heads")
LEARNED = Path("models/multi_label/learned")


@dataclass(frozen=True)
class Pictures:
    """A split: images uint8 `[N, H, W, 3]`, labels bool `[N, K]`, and masks bool `[N, S, H, W]` or None, memory-mapped."""

    images: NDArray[np.uint8]
    labels: NDArray[np.bool_]
    masks: NDArray[np.bool_] | None


def load_pictures(dataset: str, split: str) -> Pictures:
    """A prepared split; BlaError if images have one class each."""
    folder = IMAGES / dataset
    masks, labels = folder / f"{split}_masks.npy", load_array(folder / f"{split}_labels.npy")
    if labels.ndim != 2:
        raise BlaError(f"{folder}: images have one class each; run dvc repro multi_label_prepare@{dataset}")
    images = load_array(folder / f"{split}_images.npy")
    return Pictures(images, labels, load_array(masks) if masks.exists() else None)


def picture_files(dataset: str) -> list[Path]:
    """All prepared files of a dataset, for cache keys."""
    return sorted((IMAGES / dataset).iterdir())


def class_names(dataset: str) -> list[str]:
    """The classes by label."""
    names = load_table(IMAGES / dataset / "classes.csv", dtype=str, keep_default_na=False)["name"]
    return [str(name) for name in names]


def has_mask_of_each_class(dataset: str) -> bool:
    """Whether each class has a mask of its own, in the order of the classes."""
    names = load_table(IMAGES / dataset / "masks.csv", dtype=str, keep_default_na=False)["name"]
    return [str(name) for name in names] == class_names(dataset)


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors by name as safetensors."""
    with replacing(path) as part:
        save_file({name: np.ascontiguousarray(value.numpy()) for name, value in tensors.items()}, part)


def load_tensors(path: Path, stage: str) -> dict[str, Tensor]:
    """The tensors of a file; BlaError, with the stage that rebuilds it, if it is damaged."""
    arrays = load_arrays(path, f"dvc repro {stage}")
    refuse_nan(path, arrays, f"dvc repro {stage}")
    return {name: torch.from_numpy(value) for name, value in arrays.items()}


def load_classifier(dataset: str, settings: Settings) -> Classifier:
    """The sigmoid classifier of all runs, in evaluation mode, on the device."""
    _, height, width, _ = load_pictures(dataset, "test").images.shape
    spec, weights = settings.dataset[dataset].backbone, BACKBONES / f"{dataset}.safetensors"
    extractor = fold_batch_norm(load_backbone(spec, weights, (height, width)))
    heads = load_tensors(HEADS / f"{dataset}.safetensors", f"multi_label_head@{dataset}")
    return Classifier(extractor, Head(heads["weight"], heads["bias"]), "sigmoid").to(choose_device()).eval()


def load_data(dataset: str, split: str, settings: Settings) -> TrainingData:
    """Features, images and labels of a split; epochs are counted from the end of the heads' training."""
    features, pictures = load_tensor(FEATURES / dataset / f"{split}_features.npy"), load_pictures(dataset, split)
    grid = features.shape[2], features.shape[3]
    labels, schedule = torch.from_numpy(np.array(pictures.labels)), settings.dataset[dataset].training
    return TrainingData(
        features.flatten(2, 3), grid, pictures.images, labels, schedule, choose_device(), schedule.epochs
    )
