"""Masks of classifiers with several classes an image, measured as Stalder et al. 2022 do, on the classes that are present."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from bla.explainers.all_maps import maps_of_classes
from bla.explainers.explanandum import show
from bla.explainers.interface import Explainer
from bla.metrics.masked_classes import class_specificity, masked_scores
from bla.metrics.segmentation import agreement
from bla.networks.classifier import Classifier
from bla.networks.patches import batch_size_for

Array = NDArray[np.float64]
CONSTANT_MASKS = {"0": 0.0, "0.5": 0.5, "1": 1.0}
"""Controls; another one is `PERFECT`, the objects' own masks."""
PERFECT = "perfect"


@dataclass(frozen=True)
class Subjects:
    """N test images: uint8 `[N, H, W, 3]` on the device, their classes, bool `[N, K]`, and masks bool `[N, S, H, W]` or None.

    Each class has a mask of its own, S = K, if `of_classes`.
    """

    images: Tensor
    present: NDArray[np.bool_]
    masks: NDArray[np.bool_] | None
    of_classes: bool

    @property
    def objects(self) -> NDArray[np.bool_] | None:
        """The union of each image's masks, bool `[N, H, W]`."""
        return None if self.masks is None else np.asarray(self.masks.any(axis=1))


def class_masks(explainer: Explainer, images: Tensor, classes: int, seeds: Tensor) -> Array:
    """The masks `[N, K, H, W]` in [0, 1] of every class of images `[N, H, W, 3]`.

    Maps of other methods than mask networks are scaled by their least and largest value; constant ones become 0.
    """
    targets = torch.arange(classes, device=images.device)[:, None].expand(-1, len(images))
    size, maps = list(images.shape[1:3]), []
    for of_class in maps_of_classes(explainer, images, targets, seeds).double():
        maps.append(interpolate(of_class[:, None], size, mode="bilinear", align_corners=False)[:, 0].numpy())
    found: Array = np.stack(maps, axis=1)
    return found if explainer.makes_masks else scaled(found)


def scaled(maps: Array) -> Array:
    """Maps `[..., H, W]` scaled to [0, 1] by their least and largest value; 0 where they are equal."""
    low, high = maps.min(axis=(-2, -1), keepdims=True), maps.max(axis=(-2, -1), keepdims=True)
    return np.asarray(np.where(high > low, (maps - low) / np.where(high > low, high - low, 1), 0))


def merged(masks: Array, present: NDArray[np.bool_]) -> Array:
    """The largest of the masks `[N, K, H, W]` of the classes that are present, `[N, H, W]`; 0 where none is."""
    return np.asarray(np.where(present[..., None, None], masks, 0).max(axis=1))


def control_masks(subjects: Subjects) -> dict[str, Array]:
    """The masks `[N, K, H, W]` of the controls: constant ones, and of each class the objects' (their union if S < K)."""
    shape = (*subjects.present.shape, *subjects.images.shape[1:3])
    controls = {name: np.full(shape, value) for name, value in CONSTANT_MASKS.items()}
    if subjects.masks is not None:
        masks = subjects.masks if subjects.of_classes else np.broadcast_to(subjects.masks.any(axis=1, keepdims=True), shape)  # fmt: skip
        controls[PERFECT] = masks.astype(np.float64)
    return controls


@torch.no_grad()
def scores_of(classifier: Classifier, images: Tensor, masks: Tensor) -> Array:
    """Class scores `[N, K]` of a classifier of one run for images `[N, H, W, 3]` under masks `[N, H, W]`."""
    mean = classifier.extractor.mean.flatten()  # type: ignore[operator]
    size = batch_size_for(images.device, images.shape[1:3])
    pairs = zip(images.split(size), masks.split(size), strict=True)
    parts = [classifier(show(part.float(), mask, mean))[0].cpu() for part, mask in pairs]
    return torch.cat(parts).double().numpy()


def measure(classifier: Classifier, subjects: Subjects, masks: Array) -> dict[str, Array]:
    """The scores `[N]` by metric of the masks `[N, K, H, W]` of every class, for the classifier of one run."""
    target = merged(masks, subjects.present)
    on_device = torch.from_numpy(target).float().to(subjects.images.device)
    shown, hidden = (scores_of(classifier, subjects.images, mask) for mask in (on_device, 1 - on_device))
    found = masked_scores(target.mean(axis=(1, 2)), shown, hidden, subjects.present)
    return found if subjects.objects is None else agreement(target, subjects.objects) | found


def specificity(classifier: Classifier, subjects: Subjects, masks: Array) -> Array:
    """The class-specificity matrix `[K, 1 + K]` of the masks `[N, K, H, W]` of every class."""
    on_device = torch.from_numpy(masks).float().to(subjects.images.device)
    return class_specificity(
        lambda images, mask: scores_of(classifier, images, mask), subjects.images, on_device, subjects.present
    )


def over_runs(values: Mapping[int, Mapping[str, Array]]) -> dict[str, Array]:
    """The mean over the runs of each metric's values `[N]`."""
    runs = list(values.values())
    return {name: np.mean([run[name] for run in runs], axis=0) for name in runs[0]}
