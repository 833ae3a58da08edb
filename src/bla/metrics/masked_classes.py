"""What a classifier of several classes an image says of masked images (Stalder et al. 2022; code that they released).

Probabilities p are a softmax over the classes, although such a classifier has a sigmoid for each. The masked image has
its normalised pixels multiplied by the mask, so that hidden pixels have the mean colour.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bla.metrics import Metric

Array = NDArray[np.float64]

SMALLEST_AREA = 0.05
"""Masks of a smaller share of the image score no better."""
SMALLEST_PROBABILITY = 1e-16
THRESHOLDS = tuple(step / 10 for step in range(1, 10))
_STALDER = "Stalder et al. 2022; their code"

# fmt: off
MASKED = (
    Metric("saliency", "saliency metric", "lower", "nats", "log max(area, 0.05) − log Σ p of the true classes",
           "A small mask on which the classifier still sees the true classes scores well. "
           "Each class counts once; the authors' code counts each object.", "Dabkowski and Gal 2017; " + _STALDER),
    Metric("area", "area", "lower", "0 to 1", "mean m", "The mean of the mask.", _STALDER),
    Metric("sparsity", "sparsity", "higher", "0 to 1", "Σ p²",
           "1 if the classifier sees one class on the masked image, 1/K if it sees all equally.", _STALDER),
    Metric("hidden_entropy", "entropy of the rest", "higher", "nats", "− Σ p log p of the inverted mask",
           "High if what the mask hides tells no class.", _STALDER),
    Metric("classes_f1", "F1 of the classes", "higher", "0 to 1", "2 tp / (2 tp + fp + fn)",
           "The classes with a positive score on the masked image, against the true ones, image by image.", _STALDER),
)
# fmt: on


def masked_scores(areas: Array, shown: Array, hidden: Array, present: NDArray[np.bool_]) -> dict[str, Array]:
    """The scores `[M]` by the names of `MASKED`, from class scores `[M, K]` of images under a mask, and under its inverse.

    `areas` `[M]` are the masks' means, `present` bool `[M, K]` the true classes. Images without a class have NaN where
    one is needed.
    """
    p, q = softmax(shown), softmax(hidden)
    seen, some = shown > 0, present.any(axis=1)
    total = np.maximum((p * present).sum(axis=1), SMALLEST_PROBABILITY)
    both = (seen & present).sum(axis=1)
    with np.errstate(invalid="ignore"):
        f1 = 2 * both / (seen.sum(axis=1) + present.sum(axis=1))
    return {
        "saliency": np.where(some, np.log(np.maximum(areas, SMALLEST_AREA)) - np.log(total), np.nan),
        "area": areas,
        "sparsity": (p**2).sum(axis=1),
        "hidden_entropy": -(q * np.log(np.maximum(q, SMALLEST_PROBABILITY))).sum(axis=1),
        "classes_f1": np.where(some, f1, np.nan),
    }


def softmax(scores: Array) -> Array:
    """Probabilities `[..., K]` of class scores."""
    odds = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.asarray(odds / odds.sum(axis=-1, keepdims=True))


def class_specificity(
    scores_of: Callable[[Tensor, Tensor], Array], images: Tensor, masks: Tensor, present: NDArray[np.bool_]
) -> Array:
    """The mean of 100 p of class i over images with class i: unmasked, and under the mask of each class j, `[K, 1 + K]`.

    `images` are `[N, H, W, 3]`, `masks` `[N, K, H, W]` in [0, 1], `present` bool `[N, K]`. Masks are cut to 0 and 1 at
    the thresholds 0.1 to 0.9, and p is the mean over these. `scores_of` gives class scores `[n, K]` of images under
    masks `[n, H, W]`. Classes that no image has are NaN.
    """
    count, classes = present.shape
    p = np.zeros((count, 1 + classes, classes))
    p[:, 0] = softmax(scores_of(images, torch.ones_like(masks[:, 0])))
    for mask in range(classes):
        cut = [softmax(scores_of(images, (masks[:, mask] > t).to(masks))) for t in THRESHOLDS]
        p[:, 1 + mask] = np.mean(cut, axis=0)
    with np.errstate(invalid="ignore"):
        return np.stack([100 * p[present[:, i], :, i].sum(axis=0) / present[:, i].sum() for i in range(classes)])
