"""All metrics of `bla.metrics` for the maps of many methods, image by image.

    subject = Subject(classifier.run(0), images, labels, targets, seeds, features, masks)
    rows, curves = measure(subject, maps, hard, slow, at_once=4, orders=5)

Maps are `[M, n]` in double precision, NaN if a method did not explain an image; that image then has no score. All
methods are measured on the same images; an occluded image that several methods need goes through the classifier once.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from bla.base.rounding import joined
from bla.explainers.occlusion import blurred, occluded_logits, patch_masks
from bla.method.scores import correct, loss_as
from bla.metrics.confidence import average_drop, explanation_mask, increase, keep_largest
from bla.metrics.curves import area_under_curve, curve_steps, insertion_patterns, pooled_maps, rank_cells
from bla.metrics.localisation import coverage, overlap, pointing_game, weight_inside
from bla.metrics.road import impute, removed, removed_counts
from bla.networks.classifier import Classifier
from bla.networks.patches import Grid, cells_of_pixels

Array = NDArray[np.float64]
SHARES = (100, 50, 15)
TiedPixels = Literal["orders", "last"]
AT_ONCE = 4096
"""Pooled maps per batch."""
IMPUTED_AT_ONCE = 64
"""Imputed images in memory."""
FEW_CELLS = 8 / 49
"""The share of cells in an explanation of fixed size: L2X-F's k = 8 of 49 (paper, section 4.2)."""


@dataclass(frozen=True)
class Subject:
    """The classifier of one run, M pairs (image, class), and everything that the metrics need about them.

    `images` uint8 `[M, H, W, 3]` and `features` `[M, n, C]` on the classifier's device, of the `grid`'s n cells;
    `labels` int64 `[M]`, or multi-hot bool `[M, K]`; `targets` int64 `[M]`, the classes that are explained; `seeds`
    `[M]` order tied cells; `masks` bool `[M, H, W]` of the object, or None.
    """

    classifier: Classifier
    images: Tensor
    labels: NDArray[np.int64] | NDArray[np.bool_]
    targets: NDArray[np.int64]
    seeds: list[int]
    features: Tensor
    grid: Grid
    masks: NDArray[np.bool_] | None

    def coverage(self) -> Array:
        """The share of each cell that the mask covers, `[M, n]`."""
        assert self.masks is not None
        return coverage(torch.from_numpy(self.masks), self.grid)


def few_cells(cells: int) -> int:
    """The number of cells in an explanation of fixed size."""
    return max(1, round(FEW_CELLS * cells))


def measure(
    subject: Subject,
    maps: Mapping[str, Array],
    hard: Mapping[str, NDArray[np.bool_]],
    slow: NDArray[np.bool_],
    at_once: int,
    orders: int,
    tied_pixels: TiedPixels = "orders",
    occlude: bool = True,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The scores, a row per method, metric and image, and the points of the curves.

    Without `occlude` no image is occluded and classified again: there is no average drop and no increase.

    `hard` `[M, n]` are hard explanations of methods that have them; for others it is the most important cells. Deletion,
    insertion and ROAD are computed for the images that are `slow` (bool `[M]`). `tied_pixels`, of average drop at 50
    and 15 %, are taken in the `orders` of their cells, or the last ones of the image are kept. Columns: method, metric, image (0 to
    M - 1), value; and method, curve, cells, share, image, value.
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

    ones = torch.ones(1, *subject.images.shape[:3], device=subject.images.device)
    whole = _target_probabilities(subject, np.arange(len(subject.images)), ones)[0] if occlude else None
    for name, values in maps.items():
        rows = np.nonzero(np.isfinite(values).all(axis=1))[0]
        if not len(rows):
            continue
        if whole is not None:
            of_name = _confidence(subject, whole[rows], values[rows], ranks[name][rows], rows, tied_pixels)
            for metric, scores_of_images in of_name.items():
                add(name, metric, rows, scores_of_images)
        by_features = _by_features(subject, ranks[name][rows], rows, steps[1:])
        for curve, of_steps in by_features.items():
            add_curve(name, curve, steps[1:], rows, of_steps)
            add(name, curve, rows, of_steps[:, steps.index(few_cells(cells)) - 1])
        if subject.masks is not None:
            chosen = hard[name][rows][:, None] if name in hard else (ranks[name][rows] < few_cells(cells)).numpy()
            for metric, scores_of_images in _localisation(subject, values[rows], chosen, rows).items():
                add(name, metric, rows, scores_of_images)

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
        counts = removed_counts(cells)
        most, least = _road(subject, int(image), torch.stack([ranks[name][image] for name in names]), counts)
        for name, first, last in zip(names, most, least, strict=True):
            for metric, values in (("road_morf", first), ("road_lerf", last)):
                add_curve(name, metric, counts, one, values[None])
                add(name, metric, one, values.mean(keepdims=True))
            add(name, "road", one, (last - first).mean(keepdims=True))
    points = pd.concat(curves, ignore_index=True)
    points["share"] = points["cells"] / cells
    return pd.concat(scores, ignore_index=True), points[["method", "curve", "cells", "share", "image", "value"]]


def _confidence(
    subject: Subject, whole: Array, maps: Array, ranks: Tensor, pairs: NDArray[np.intp], tied_pixels: TiedPixels
) -> dict[str, Array]:
    """Average drop from the probability `whole` `[B]` of the image, and increase of it, at each share: `[B]` each.

    Of tied pixels those go first whose cell ranks last in `ranks` `[B, Q, n]`; scores are means over the Q orders.
    """
    rows = torch.from_numpy(pairs).to(subject.images.device)
    images = subject.images[rows]
    size = images.shape[1:3]
    masks = explanation_mask(torch.from_numpy(joined(maps)).view(-1, *subject.grid).to(images.device), size)
    cells = cells_of_pixels(size, subject.grid).to(images.device)
    probabilities = np.zeros((ranks.shape[1], len(SHARES), len(pairs)))
    places = list(range(len(SHARES)))
    for order in range(ranks.shape[1]):
        first_out = ranks[:, order].to(images.device)[:, cells] if tied_pixels == "orders" else torch.zeros_like(masks)
        kept, ties = zip(*(keep_largest(masks, SHARES[place] / 100, first_out) for place in places), strict=True)
        probabilities[order:, places] = _target_probabilities(subject, pairs, torch.stack(kept).float())
        # Where no image has tied pixels at the bound, further orders give the same.
        places = [place for place, tied in zip(places, ties, strict=True) if tied_pixels == "orders" and tied.any()]
        if not places:
            break
    drops, increases = average_drop(whole, probabilities), increase(whole, probabilities)
    scores = {}
    for place, share in enumerate(SHARES):
        scores[f"average_drop_{share}"] = drops[:, place].mean(axis=0)
        scores[f"increase_{share}"] = increases[:, place].mean(axis=0)
    return scores


def _target_probabilities(subject: Subject, pairs: NDArray[np.intp], masks: Tensor) -> Array:
    """The probability of each pair's class when its image is multiplied by masks `[S, B, H, W]`: `[S, B]`."""
    images = subject.images[torch.from_numpy(pairs).to(subject.images.device)]
    every = occluded_logits(subject.classifier, images, lambda image, number: masks[number, image], len(masks))
    probabilities = [subject.classifier.probabilities(logits[0].double()).cpu().numpy() for logits in every]
    targets = subject.targets[pairs][:, None, None]
    return np.take_along_axis(np.stack(probabilities), targets, axis=2)[..., 0].T


def _by_features(subject: Subject, ranks: Tensor, pairs: NDArray[np.intp], steps: list[int]) -> dict[str, Array]:
    """Accuracy and loss `[B, S]` of the tail on the mean of the most important cells, averaged over tie orders.

    The tail gets a map in which every cell is that mean. For a pooled head this equals pooling the selected cells; for
    other tails the map has the size that they expect.
    """
    rows = torch.from_numpy(pairs).to(subject.features.device)
    result = []
    for some, places in zip(rows.split(64), ranks.split(64), strict=True):
        features = subject.features[some].float()[:, None]
        means = pooled_maps(features, places.to(features.device), steps)  # [B, Q, S, C]
        result.append(_tail_on_equal_cells(subject, means).cpu())
    return _right_and_loss(subject, torch.cat(result), pairs, "features")


@torch.no_grad()
def _tail_on_equal_cells(subject: Subject, means: Tensor) -> Tensor:
    """Class scores `[..., K]` of maps whose cells are all `means` `[..., C]`."""
    cells = (1, 1) if subject.classifier.is_pooled else subject.grid
    flat = means.flatten(0, -2)[:, :, None, None]
    parts = [subject.classifier.logits(part.expand(-1, -1, *cells))[0] for part in flat.split(AT_ONCE)]
    return torch.cat(parts).view(*means.shape[:-1], -1)


def _right_and_loss(subject: Subject, logits: Tensor, pairs: NDArray[np.intp], seen: str) -> dict[str, Array]:
    """Accuracy and loss `[B, S]` of class scores `[B, Q, S, K]` for these pairs, averaged over Q."""
    labels = torch.from_numpy(subject.labels[pairs])[:, None, None]
    right = correct(logits, labels.expand(*logits.shape[:3], *labels.shape[3:])).double().mean(dim=1)
    loss = loss_as(subject.classifier.scores, logits.double(), labels).mean(dim=1)
    return {f"accuracy_{seen}": right.numpy(), f"loss_{seen}": loss.numpy()}


def _localisation(
    subject: Subject, maps: Array, chosen: NDArray[np.bool_], pairs: NDArray[np.intp]
) -> dict[str, Array]:
    """The metrics of `bla.metrics.localisation`, `[B]` each; `chosen` `[B, Q, n]`."""
    assert subject.masks is not None
    masks, covered = subject.masks[pairs], subject.coverage()[pairs]
    iou, precision, recall = (scores.mean(axis=1) for scores in overlap(chosen, covered))
    hits = pointing_game(maps.reshape(-1, *subject.grid), masks)
    scores = {"pointing_game": hits, "iou": iou, "precision": precision, "recall": recall}
    return scores | {"weight_inside": weight_inside(maps, covered)}


def _curves(subject: Subject, image: int, ranks: Tensor, steps: list[int]) -> dict[str, Array]:
    """The curves `[methods, S]` of one image, averaged over tie orders, from ranks `[methods, Q, n]`."""
    picture = subject.images[image : image + 1]
    shown = insertion_patterns(ranks, steps)  # [methods, Q, S, n]
    asked = torch.stack([shown, ~shown])
    patterns, which = torch.unique(asked.flatten(0, 3), dim=0, return_inverse=True)
    masks = patch_masks(patterns.to(picture.device), picture.shape[1:3], subject.grid)
    curves = {}
    for name, background in (("black", None), ("blur", blurred(picture))):
        (logits,) = occluded_logits(subject.classifier, picture, masks, len(patterns), background)
        of_patterns = logits[0].cpu()[which].view(*asked.shape[:4], -1)  # [2, methods, Q, S, K]
        of_classes = subject.classifier.probabilities(of_patterns.double())
        probabilities = of_classes[..., subject.targets[image]].mean(dim=2).numpy()
        curves[f"insertion_{name}"], curves[f"deletion_{name}"] = probabilities
        if name == "black":
            curves |= _right_and_loss(subject, of_patterns[0], np.repeat(image, len(ranks)), "image")
    return curves


def _road(subject: Subject, image: int, ranks: Tensor, counts: list[int]) -> Array:
    """The class's probability `[2, methods, S]` with `counts` cells imputed, the most and the least relevant first.

    Averaged over the tie orders of `ranks` `[methods, Q, n]`.
    """
    asked = removed(ranks, counts)  # [methods, Q, 2, S, n]
    patterns, which = torch.unique(asked.flatten(0, 3), dim=0, return_inverse=True)
    picture = subject.images[image].cpu()
    size, probabilities = picture.shape[:2], []
    for hidden in patterns.split(IMPUTED_AT_ONCE):
        images = impute(picture, hidden, subject.grid, subject.seeds[image]).to(subject.images.device)
        logits = occluded_logits(subject.classifier, images, lambda i, _: torch.ones(len(i), *size, device=i.device), 1)
        of_patterns = subject.classifier.probabilities(torch.cat([of[0] for of in logits]).double())
        probabilities.append(of_patterns[:, subject.targets[image]].cpu())
    return torch.cat(probabilities)[which].view(*asked.shape[:4]).mean(dim=1).movedim(1, 0).numpy()
