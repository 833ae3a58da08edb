"""All maps of one method: of the images, of the images with noise, and on classifiers with more and more random layers.

    arrays = make_maps(GradCAM, classifier, lambda: random, images, targets, seeds, slow, checked, noise=0.02)

And maps of learned methods fitted anew to random classifiers: a module never reads the head, so a random head alone
would not change its maps.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bla.base.specs import BoundedLogits, Explaining
from bla.explainers.interface import (
    Explainer,
    LearnedExplainer,
    Sets,
    TrainingData,
    add_noise,
    cell_maps,
    explain_in_batches,
)
from bla.explainers.posthoc.cam import cam
from bla.method.equations import logits_of, soft_weights, threshold
from bla.method.modules import Module
from bla.networks.classifier import Classifier
from bla.networks.patches import batch_size_for, cell_means

Array = NDArray[np.float64]


@dataclass(frozen=True)
class MethodMaps:
    """The maps of one method for M images; NaN, or an empty list, for images that it did not explain.

    `maps` `[M, h', w']` at the method's own resolution; `sets` of cells, if the method returns sets. Means over the n
    cells: `noise` `[M, n]`, of the images with noise, and `random` `[L, M, n]`, on each of the L randomised
    classifiers. `forwards` is the number of forward passes per map.
    """

    maps: Array
    sets: Sets
    noise: Array
    random: Array
    forwards: float


def make_maps(
    build: Callable[[Classifier], Explainer],
    classifier: Classifier,
    randomised: Callable[[], Sequence[Classifier]],
    images: Tensor,
    targets: Tensor,
    seeds: Tensor,
    slow: NDArray[np.bool_],
    checked: NDArray[np.bool_],
    noise: float,
    maps: Array | None = None,
) -> MethodMaps:
    """All maps of one method; `maps` `[M, h, w]`, if given, are used for the images themselves.

    A slow method explains the images that are `slow` (bool `[M]`); noise, and the first and last random classifier, are
    tried on those that are `checked`. Other methods explain all images on all classifiers. `noise` is a standard
    deviation.
    """
    method = build(classifier)
    every = np.ones(len(targets), bool)
    chosen, again = (slow, checked) if method.slow else (every, every)
    grid = method.grid(images)

    def explain(method: Explainer, images: Tensor, which: NDArray[np.bool_]) -> tuple[Array, Sets]:
        rows = torch.from_numpy(np.nonzero(which)[0])
        on_device = rows.to(images.device)
        values, sets = explain_in_batches(method, images[on_device], targets[on_device], seeds[rows])
        result = np.full((len(targets), *values.shape[1:]), np.nan)
        result[which] = values.double().numpy()
        placed: Sets = [[] for _ in targets] if sets else []
        for row, of_image in zip(rows.tolist(), sets, strict=bool(sets)):
            placed[row] = of_image
        return result, placed

    def cells(values: Array) -> Array:
        return np.asarray(cell_means(torch.from_numpy(values), grid).flatten(1).numpy())

    first, sets = explain(method, images, chosen) if maps is None else (maps, [])
    before = classifier.forwards
    noisy = cells(explain(method, add_noise(images, noise, seeds), again)[0])
    forwards = (classifier.forwards - before) / again.sum()
    classifiers = randomised()
    random = np.full((len(classifiers), *noisy.shape), np.nan)
    for level, other in enumerate(classifiers):
        if not method.slow or level in (0, len(classifiers) - 1):
            random[level] = cells(explain(build(other), images, again)[0])
    return MethodMaps(first, sets, noisy, random, forwards)


def retrained_maps(
    build: Callable[[Classifier], LearnedExplainer],
    classifiers: Sequence[Classifier],
    data: Sequence[TrainingData],
    seed: int,
    images: Tensor,
    targets: Tensor,
    seeds: Tensor,
) -> Array:
    """Maps `[L, M, n]` of a learned method that is fitted anew to each of L classifiers of one run, on its own features.

    Features are scaled to the spread of the first classifier's, because a random network without normalisation may give
    features of any size; images are explained with the same scaling. `build` must freeze a variant's head: a head that
    trains would undo its randomisation.
    """
    result = []
    spread = data[0].features[0].float().std()
    for classifier, training in zip(classifiers, data, strict=True):
        scale = float(spread / training.features[0].float().std())
        scaled = replace(training, features=training.features * torch.tensor(scale).to(training.features))
        method = build(classifier.with_scaled_features(scale))
        method.load(method.fit(scaled, [seed]))
        result.append(cell_maps(method, images, targets, seeds, method.grid(images)).numpy())
    return np.stack(result)


@torch.no_grad()
def features_of(classifier: Classifier, images: Tensor) -> Tensor:
    """The features `[1, N, n, C]` that a classifier's backbone gives for images `[N, H, W, 3]`, one draw, on its device."""
    device = classifier.device
    parts = images.split(batch_size_for(device, images.shape[1:3]))
    return torch.cat([classifier.features(part.to(device)).flatten(2).transpose(1, 2) for part in parts])[None]


def maps_of_all_runs(
    features: Tensor, head_weight: Tensor | None, targets: Tensor, modules: Mapping[str, tuple[Explaining, Module]]
) -> dict[str, Array]:
    """Table 2's maps `[R, M, n]` of all runs, from features `[M, n, C]`: CAM, Grad-CAM, and the variants' soft weights.

    `head_weight` is `[R, K, C]`, `targets` `[R, M]`; without linear heads there is no CAM and no Grad-CAM. `modules`
    holds each variant and its modules of all runs. A variant with a threshold also gets KEY_after_threshold, its
    weights after the cut.
    """
    maps = {}
    if head_weight is not None:
        maps["cam"] = cam(features, head_weight, targets).double()
        maps["grad_cam"] = maps["cam"].clip(min=0)
    for key, (variant, module) in modules.items():
        soft = maps[key] = soft_weights(logits_of(variant, module(features)).double(), variant.temperature)
        if isinstance(variant, BoundedLogits) and variant.threshold_factor:
            maps[f"{key}_after_threshold"] = threshold(soft, variant.threshold_factor, variant.threshold_rule)
    return {name: values.cpu().numpy() for name, values in maps.items()}
