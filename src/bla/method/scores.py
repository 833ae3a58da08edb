"""Probabilities, losses and accuracy from class scores: one class per image (softmax) or several (sigmoid).

Labels are int64 `[N]`, the class of each image, or multi-hot bool `[N, K]`, all its classes. The labels decide the
training loss: cross-entropy, or binary cross-entropy summed over the classes, both in nats per image.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, one_hot

Scores = Literal["softmax", "sigmoid"]


def probabilities(logits: Tensor, scores: Scores) -> Tensor:
    """Probabilities `[..., K]` of class scores: they sum to 1 (softmax), or each class has its own (sigmoid)."""
    return logits.softmax(dim=-1) if scores == "softmax" else logits.sigmoid()


def scores_of(labels: Tensor) -> Scores:
    """Whether heads trained on these labels give softmax or sigmoid scores."""
    return "softmax" if labels.ndim == 1 else "sigmoid"


def class_count(labels: Tensor) -> int:
    """The number of classes: the largest label plus one, or the width of multi-hot labels."""
    return int(labels.max()) + 1 if labels.ndim == 1 else labels.shape[1]


def losses(logits: Tensor, labels: Tensor) -> Tensor:
    """The loss `[..., B]` in nats of scores `[..., B, K]` for labels `[..., B]`, or multi-hot bool `[..., B, K]`."""
    if labels.is_floating_point() or labels.dtype == torch.bool:
        targets = labels.to(logits.dtype).expand_as(logits)
        return binary_cross_entropy_with_logits(logits, targets, reduction="none").sum(dim=-1)
    targets = labels.expand(logits.shape[:-1])
    loss: Tensor = cross_entropy(logits.flatten(0, -2), targets.flatten(), reduction="none")
    return loss.view_as(targets)


def correct(logits: Tensor, labels: Tensor) -> Tensor:
    """Whether the prediction is right, bool `[..., B]`: the class with the highest score, or all with a positive score.

    For multi-hot labels this is subset accuracy: every class must be right.
    """
    if labels.dtype == torch.bool:
        return ((logits > 0) == labels).all(dim=-1)
    return logits.argmax(dim=-1) == labels


def loss_as(scores: Scores, logits: Tensor, labels: Tensor) -> Tensor:
    """The loss of a classifier with these scores; with sigmoid scores, labels of one class each are made multi-hot."""
    if scores == "sigmoid" and labels.dtype != torch.bool:
        labels = one_hot(labels, logits.shape[-1]).bool()
    return losses(logits, labels)
