"""Every metric of `bla.metrics` for the maps of many methods, image by image.

    subject = Subject(classifier.run(0), images, labels, targets, seeds, features, masks)
    rows, curves = measure(subject, maps, hard, slow, at_once=4, orders=5)

Maps are `[M, n]` in double precision, NaN where a method has none for an image; an image then has no score. All methods
are measured on the same images, and hidden images that several methods ask for go through the classifier once.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from bla.explainers.occlusion import blurred, occluded_logits, patch_masks
from bla.metrics.confidence import average_drop, explanation_mask, increase, keep_largest
from bla.metrics.curves import area_under_curve, curve_steps, insertion_patterns, pooled_logits, rank_cells
from bla.metrics.localisation import coverage, overlap, pointing_game, weight_inside
from bla.networks.classifier import Classifier

Array = NDArray[np.float64]
SHARES = (100, 50, 15)
FEW_CELLS = 8 / 49
"""The share of the cells in an explanation of given size: L2X-F's k = 8 of 49 (paper, section 4.2)."""


@dataclass(frozen=True)
class Subject:
    """The classifier of one run, and M images with all that the metrics need to know of them.

    `images` uint8 `[M, H, W, 3]` and `features` `[M, n, C]` on the classifier's device; `labels` and `targets` (the classes
    that are explained) int64 `[M]`; `seeds` `[M]` order tied cells; `masks` bool `[M, H, W]` or None.
    """

    classifier: Classifier
    images: Tensor
    labels: NDArray[np.int64]
    targets: NDArray[np.int64]
    seeds: list[int]
    features: Tensor
    masks: NDArray[np.bool_] | None

    @property
    def grid(self) -> int:
        return math.isqrt(self.features.shape[1])

    def coverage(self) -> Array:
        """The share of each cell that the mask covers, `[M, n]`."""
        assert self.masks is not None
        return coverage(torch.from_numpy(self.masks), self.grid)


def few_cells(cells: int) -> int:
    """How many of so many cells an explanation of given size has."""
    return max(1, round(FEW_CELLS * cells))


def measure(
    subject: Subject,
    maps: Mapping[str, Array],
    hard: Mapping[str, NDArray[np.bool_]],
    slow: NDArray[np.bool_],
    at_once: int,
    orders: int,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The scores of every method, a row a method, metric and image, and the points of the curves.

    `hard` holds the hard explanations `[M, n]` of methods that have one of their own; others get their most important
    cells. Curves, for which cells are hidden one step after another, are of the images that are `slow` (bool `[M]`).
    Columns: method, metric, image (0 to M - 1), value; and method, curve, cells, share, image, value.
    """
    cells = subject.features.shape[1]
    steps = sorted({*curve_steps(cells, at_once), few_cells(cells)})
    ranks = {name: rank_cells(values, subject.seeds, orders) for name, values in maps.items()}
    scores: list[pd.DataFrame] = []
    curves: list[pd.DataFrame] = []

    def add(name: str, metric: str, images: NDArray[np.intp], values: Array) -> None:
        scores.append(pd.DataFrame({"method": name, "metric": metric, "image": images, "value": values}))

    def add_curve(name: str, curve: str, steps: list[int], images: NDArray[np.intp], values: Array) -> None:
        table = pd.DataFrame({"cells": np.tile(steps, len(images)), "image": np.repeat(images, len(steps))})
        curves.append(table.assign(method=name, curve=curve, value=values.ravel()))

    for name, values in maps.items():
        there = np.nonzero(np.isfinite(values).all(axis=1))[0]
        if not len(there):
            continue
        for metric, found in _confidence(subject, values[there], there).items():
            add(name, metric, there, found)
        by_features = _by_features(subject, ranks[name][there], there, steps[1:])
        for curve, of_steps in by_features.items():
            add_curve(name, curve, steps[1:], there, of_steps)
            add(name, curve, there, of_steps[:, steps.index(few_cells(cells)) - 1])
        if subject.masks is not None:
            chosen = hard[name][there][:, None] if name in hard else (ranks[name][there] < few_cells(cells)).numpy()
            for metric, found in _localisation(subject, values[there], chosen, there).items():
                add(name, metric, there, found)

    for image in np.nonzero(slow)[0]:
        names = [name for name, values in maps.items() if np.isfinite(values[image]).all()]
        if not names:
            continue
        of_image = _curves(subject, int(image), torch.stack([ranks[name][image] for name in names]), steps)
        one = np.array([image])
        for curve, values in of_image.items():  # [methods, S]
            for name, points in zip(names, values, strict=True):
                add_curve(name, curve, steps, one, points)
                few = curve in ("accuracy_image", "loss_image")
                score = points[steps.index(few_cells(cells))] if few else area_under_curve(points, steps)
                add(name, curve, one, np.array([score]))
    points = pd.concat(curves, ignore_index=True)
    points["share"] = points["cells"] / cells
    return pd.concat(scores, ignore_index=True), points[["method", "curve", "cells", "share", "image", "value"]]


def _confidence(subject: Subject, maps: Array, there: NDArray[np.intp]) -> dict[str, Array]:
    """Average drop and increase of confidence at each share, `[B]` each."""
    rows = torch.from_numpy(there).to(subject.images.device)
    images, grid = subject.images[rows], subject.grid
    masks = explanation_mask(torch.from_numpy(maps).view(-1, grid, grid).to(images.device), tuple(images.shape[1:3]))  # type: ignore[arg-type]
    kept = torch.stack([torch.ones_like(masks), *(keep_largest(masks, share / 100) for share in SHARES)]).float()
    every = occluded_logits(subject.classifier, images, lambda image, number: kept[number, image], len(kept))
    probabilities = np.stack([logits[0].double().softmax(dim=1).cpu().numpy() for logits in every])  # [B, 4, K]
    of_target = np.take_along_axis(probabilities, subject.targets[there][:, None, None], axis=2)[..., 0]
    found = {}
    for place, share in enumerate(SHARES, start=1):
        found[f"average_drop_{share}"] = average_drop(of_target[:, 0], of_target[:, place])
        found[f"increase_{share}"] = increase(of_target[:, 0], of_target[:, place])
    return found


def _by_features(subject: Subject, ranks: Tensor, there: NDArray[np.intp], steps: list[int]) -> dict[str, Array]:
    """Accuracy and loss `[B, S]` of the head on the mean of the most important cells, mean over the orders of ties."""
    rows = torch.from_numpy(there).to(subject.features.device)
    weight, bias = subject.classifier.head_weight[0], subject.classifier.head_bias[0]
    found = []
    for some, places in zip(rows.split(64), ranks.split(64), strict=True):
        features = subject.features[some].float()[:, None]
        found.append(pooled_logits(features, places.to(features.device), steps, weight, bias).cpu())
    return _right_and_loss(torch.cat(found), subject.labels[there], "features")


def _right_and_loss(logits: Tensor, labels: NDArray[np.int64], seen: str) -> dict[str, Array]:
    """Whether the class is right, and the loss, `[B, S]`, of logits `[B, Q, S, K]`, mean over Q."""
    truth = torch.from_numpy(labels).view(-1, 1, 1, 1).expand(*logits.shape[:3], 1)
    right = (logits.argmax(dim=3, keepdim=True) == truth)[..., 0].double().mean(dim=1)
    loss = -logits.double().log_softmax(dim=3).gather(3, truth)[..., 0].mean(dim=1)
    return {f"accuracy_{seen}": right.numpy(), f"loss_{seen}": loss.numpy()}


def _localisation(
    subject: Subject, maps: Array, chosen: NDArray[np.bool_], there: NDArray[np.intp]
) -> dict[str, Array]:
    """The metrics of `bla.metrics.localisation`, `[B]` each; `chosen` `[B, Q, n]`."""
    assert subject.masks is not None
    masks, covered = subject.masks[there], subject.coverage()[there]
    iou, precision, recall = (found.mean(axis=1) for found in overlap(chosen, covered))
    hits = pointing_game(maps.reshape(-1, subject.grid, subject.grid), masks)
    found = {"pointing_game": hits, "iou": iou, "precision": precision, "recall": recall}
    return found | {"weight_inside": weight_inside(maps, covered)}


def _curves(subject: Subject, image: int, ranks: Tensor, steps: list[int]) -> dict[str, Array]:
    """The curves `[methods, S]` of one image, mean over the orders of ties, from ranks `[methods, Q, n]`."""
    picture = subject.images[image : image + 1]
    shown = insertion_patterns(ranks, steps)  # [methods, Q, S, n]
    asked = torch.stack([shown, ~shown])
    patterns, which = torch.unique(asked.flatten(0, 3), dim=0, return_inverse=True)
    masks = patch_masks(patterns.to(picture.device), tuple(picture.shape[1:3]), subject.grid)  # type: ignore[arg-type]
    found = {}
    for name, background in (("black", None), ("blur", blurred(picture))):
        (logits,) = occluded_logits(subject.classifier, picture, masks, len(patterns), background)
        of_patterns = logits[0].cpu()[which].view(*asked.shape[:4], -1)  # [2, methods, Q, S, K]
        probabilities = of_patterns.double().softmax(dim=4)[..., subject.targets[image]].mean(dim=2).numpy()
        found[f"insertion_{name}"], found[f"deletion_{name}"] = probabilities
        if name == "black":
            labels = np.repeat(subject.labels[image], len(ranks))
            found |= _right_and_loss(of_patterns[0], labels, "image")
    return found
