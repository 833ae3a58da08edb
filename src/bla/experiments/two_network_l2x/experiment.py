"""Section 4.1's L2X with two networks on a frozen backbone, under every reading of the paper (on digits: `digits`).

row, seen = train_and_evaluate(data, readings, k, schedule, ("multiplied", run, seed))
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bla.base.specs import L2XReading, Optimiser
from bla.datasets import spread_over_classes
from bla.experiments.two_network_l2x.l2x import evaluate, grid_of, masked, train
from bla.metrics.localisation import overlap
from bla.networks.backbones import Extractor
from bla.networks.patches import batch_size_for
from bla.runtime.seeds import derive_seed

PICTURED = 8
"""Number of test images that are drawn as the second network sees them."""
Row = dict[str, object]


@dataclass(frozen=True)
class Data:
    """A dataset with its extractor.

    For training: `images` uint8 `[N, H, W, 3]`, `features` `[D, N, n, C]`, `labels` `[N]`, and `rows`, the numbers of
    the images to use. `test`: images, features `[M, n, C]` and labels. `coverage`: the share `[M, n]` of each patch of
    a test image that the object covers; None without masks. `left_out`: how many images of both splits are not used.
    """

    extractor: Extractor
    images: Tensor
    features: Tensor
    labels: Tensor
    rows: Tensor
    test: tuple[Tensor, Tensor, Tensor]
    coverage: NDArray[np.float64] | None
    left_out: int


@dataclass(frozen=True)
class Seen:
    """M test images as the second network of run 0 sees them, by reading: `soft` and `hard`, uint8 `[M, H, W, 3]`."""

    images: NDArray[np.uint8]
    soft: Mapping[str, NDArray[np.uint8]]
    hard: Mapping[str, NDArray[np.uint8]]


def train_and_evaluate(
    data: Data, readings: Mapping[str, L2XReading], k: int, schedule: Optimiser, job: tuple[str, int, int]
) -> tuple[Row, Seen | None]:
    """Train and evaluate one run: its row and, for run 0, what the second network sees.

    `job` is a reading's name, the run's number and its seed. Raises BlaError as `l2x.train` does.
    """
    name, run, seed = job
    reading = readings[name]
    extractor = copy.deepcopy(data.extractor)  # runs in other threads set other factors of stochastic depth
    sets = data.images, data.features, data.labels, data.rows
    trained = train(extractor, *sets, reading, k, schedule, seed, run)
    images, _, labels = data.test
    size = batch_size_for(labels.device, images.shape[1:3])
    result = evaluate(extractor, *data.test, reading, k, trained, derive_seed(seed, "evaluation"), size)
    row: Row = {"reading": name, "temperature": reading.temperature, "background": reading.background}
    row |= {"straight_through": reading.straight_through, "k": k, "run": run, "seed": seed}
    row |= {"n_train_images": len(data.rows), "n_images": len(labels), "n_images_left_out": data.left_out}
    row |= {"n_classes": int(data.labels.max()) + 1}
    row |= {f"{shown}_accuracy": correct.double().mean().item() for shown, correct in result.correct.items()}
    row |= {"soft_brightness": result.soft.double().mean().item(), "chosen_brightness": result.chosen_brightness}
    row |= dict.fromkeys(("precision", "random_precision"), np.nan)
    if data.coverage is not None:
        for column, cells in (("precision", result.hard), ("random_precision", result.random)):
            row[column] = np.nanmean(overlap(cells.numpy(), data.coverage)[1])
    if run:
        return row, None
    pictured = torch.from_numpy(spread_over_classes(labels.cpu().numpy(), min(PICTURED, len(labels))))
    pixels = images[pictured].to(labels.device)
    grid = grid_of(extractor, images, labels.device)
    soft, hard = (
        masked(extractor, pixels, mask[pictured].to(labels.device).unflatten(-1, grid), reading)
        .round()
        .to(torch.uint8)
        .cpu()
        .numpy()
        for mask in (result.soft, result.hard)
    )
    return row, Seen(images[pictured].numpy(), {name: soft}, {name: hard})


def merged(parts: Sequence[Seen]) -> Seen:
    """The `Seen` of several readings of the same images, merged."""
    soft = {name: images for part in parts for name, images in part.soft.items()}
    return Seen(parts[0].images, soft, {name: images for part in parts for name, images in part.hard.items()})
