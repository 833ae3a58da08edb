"""The objective of the Explainer: masks of the classes that are present must show what a frozen classifier needs.

A network gives each class a mask. The target mask m, the largest of the masks of the classes that are present, must let
the classifier (the *explanandum*) find them; its inverse 1 - m must leave it without any; the non-target mask n, the
largest of the other classes' masks, should be small. With x the normalised pixels, K classes, and the mean over a batch:

    L = L_class(F(m x)) + entropy * L_entropy(F((1 - m) x)) + variation * (TV(m) + TV(n))
        + area_bounds * L_area + target_area * mean(m) + other_area * mean(n)

Where an image has no class, m is 0 everywhere; where it has all of them, n is.

Source: Stalder et al. 2022 (arXiv 2205.11266), and the code that they released.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Lt
from torch import Tensor
from torch.nn.functional import one_hot, pad

from bla.base.specs import FORBID_EXTRA, Count, Epochs, LearningRate, Share
from bla.explainers.mask_networks import NetworkName
from bla.method.scores import Scores, loss_as

SMALLEST_PROBABILITY = 1e-16
"""Probabilities are at least this before their logarithm (authors' code)."""
Weight = Annotated[float, Ge(ge=0), Lt(lt=1e6)]
Classify = Callable[[Tensor], Tensor]
"""From images `[B, H, W, 3]` to class scores `[B, K]`."""


@dataclass(frozen=True, kw_only=True)
class ExplainerSettings:
    """Weights of the objective's terms (authors' code, VGG-16 on VOC-2007), the mask network, and training (ours).

    Each mask of a present class should cover between `smallest_area` and `largest_area` of the image. It trains the
    first `runs` runs on at most `images` images.
    """

    __pydantic_config__: ClassVar = FORBID_EXTRA

    entropy: Weight = 1
    variation: Weight = 1
    area_bounds: Weight = 1
    target_area: Weight = 0.1
    other_area: Weight = 0.3
    smallest_area: Share = 0.05
    largest_area: Share = 0.3
    network: NetworkName = "small"
    runs: Count = 2
    images: Count = 200
    learning_rate: LearningRate = 0.001
    batch_size: Count = 8
    epochs: Epochs = 2

    def __post_init__(self) -> None:
        if self.smallest_area > self.largest_area:
            raise ValueError(
                f"smallest_area: {self.smallest_area:g} is more than largest_area, {self.largest_area:g}; lower it"
            )
        if self.network == "deeplab_v3" and self.batch_size < 3:
            raise ValueError(f"batch_size: {self.batch_size} is too small for batch normalisation; it needs at least 3")


def multi_hot(labels: Tensor, classes: int) -> Tensor:
    """Which classes are present, bool `[B, K]`, from labels `[B]` or multi-hot `[B, K]`."""
    return labels.bool() if labels.ndim == 2 else one_hot(labels, classes).bool()


def target_and_other(logits: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    """The masks m and n `[B, H, W]` from logits `[B, K, H, W]` and the classes that are present, bool `[B, K]`."""
    masks = (logits.masked_fill(~which[..., None, None], -math.inf).amax(dim=1) for which in (present, ~present))
    target, other = (mask.sigmoid() for mask in masks)
    return target, other


def class_loss(scores: Scores, logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy `[B]`, or with sigmoid scores binary cross-entropy averaged over the classes."""
    loss = loss_as(scores, logits, labels)
    return loss / logits.shape[1] if scores == "sigmoid" else loss


def entropy_term(logits: Tensor) -> Tensor:
    """The mean over the classes of p log p, `[B]`: minus the entropy of a softmax, divided by K.

    It is a softmax for sigmoid classifiers too, as in the authors' code.
    """
    p = logits.softmax(dim=1)
    return (p * p.clamp(min=SMALLEST_PROBABILITY).log()).mean(dim=1)


def total_variation(masks: Tensor) -> Tensor:
    """The mean over the pixels of |difference to the right| + |difference below|, `[B]`; edges are reflected."""
    padded = pad(masks[:, None], (0, 1, 0, 1), mode="reflect")[:, 0]
    return (padded[:, :-1].diff(dim=2).abs() + padded[:, :, :-1].diff(dim=1).abs()).mean(dim=(1, 2))


def area_bounds(masks: Tensor, smallest: float, largest: float) -> Tensor:
    """How far masks `[..., H, W]` in [0, 1] miss the bounds of their area, `[...]`.

    The mean over the pixels of 1 - mask for the largest `smallest` share of the values, and of the mask for all but the
    largest `largest` share; 0 for a mask of zeros and ones with an area between the bounds.
    """
    values = masks.flatten(-2)
    count = values.shape[-1]
    low, high = (math.floor(share * count + 1e-9) for share in (smallest, largest))
    top = values.topk(high, dim=-1).values
    return ((1 - top[..., :low]).sum(dim=-1) + values.sum(dim=-1) - top.sum(dim=-1)) / count


def show(images: Tensor, masks: Tensor, mean: Tensor) -> Tensor:
    """Images `[B, H, W, 3]` in [0, 255] whose normalised pixels are multiplied by masks `[B, H, W]`: 0 is the mean colour."""
    share = masks[..., None]
    return images * share + mean * (1 - share)


def objective(
    settings: ExplainerSettings,
    scores: Scores,
    classify: Classify,
    mean: Tensor,
    images: Tensor,
    labels: Tensor,
    logits: Tensor,
) -> Tensor:
    """The value L for a batch of images `[B, H, W, 3]` with labels `[B]` or `[B, K]` and the network's logits `[B, K, H, W]`.

    `mean` `[3]` is the colour that the classifier's normalisation makes 0.
    """
    present = multi_hot(labels, logits.shape[1])
    target, other = target_and_other(logits, present)
    shown, hidden = classify(torch.cat([show(images, target, mean), show(images, 1 - target, mean)])).chunk(2)
    rows, classes = present.nonzero(as_tuple=True)
    missed = area_bounds(logits[rows, classes].sigmoid(), settings.smallest_area, settings.largest_area)
    terms = class_loss(scores, shown, labels) + settings.entropy * entropy_term(hidden)
    terms = terms + settings.variation * (total_variation(target) + total_variation(other))
    terms = terms + settings.target_area * target.mean(dim=(1, 2)) + settings.other_area * other.mean(dim=(1, 2))
    return terms.mean() + settings.area_bounds * missed.sum() / len(images)
