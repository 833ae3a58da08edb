"""All maps of one method: of the images, of the images with noise, and on classifiers with random layers.

    arrays = make_maps(GradCAM, classifier, lambda: levels, lambda: draws, subjects, seeds)

And maps of learned methods fitted anew to random classifiers: a module never reads the head, so a random head alone
would not change its maps.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bla.base.specs import BoundedLogits, Explaining
from bla.explainers.interface import Explainer, LearnedExplainer, Sets, TrainingData, cell_maps, explain_in_batches
from bla.explainers.posthoc.cam import cam
from bla.method.equations import logits_of, soft_weights, threshold
from bla.method.modules import Module
from bla.networks.classifier import Classifier
from bla.networks.patches import batch_size_for, cell_means
from bla.runtime.seeds import derive_seed

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Subjects:
    """M pairs (image, class) to explain, and which of them a slow method explains.

    `images` and the same images with noise, `noisy`, are uint8 `[M, H, W, 3]`; `targets` int64 `[M]`. A slow method
    explains the images that are `slow` (bool `[M]`); a second time, with noise and on random classifiers only those
    that are `checked`.
    """

    images: Tensor
    noisy: Tensor
    targets: Tensor
    slow: NDArray[np.bool_]
    checked: NDArray[np.bool_]


@dataclass(frozen=True)
class MethodMaps:
    """The maps of one method for M images; NaN, or an empty list, for images that it did not explain.

    `maps` `[M, h', w']` at the method's own resolution; `sets` of cells, if the method returns sets. Means over the n
    cells: `again` `[M, n]`, with other random numbers (all NaN for a method without); `noise` `[M, n]`, of the images
    with noise; `random` `[L, M, n]`, on each of the L random classifiers of the cascade; `draws` `[D, 2, M, n]`, on
    the first and the last of D more cascades. `forwards`, `backwards` and `seconds` are what a map costs: forward and
    backward passes, and time.
    """

    maps: Array
    sets: Sets
    again: Array
    noise: Array
    random: Array
    draws: Array
    forwards: float
    backwards: float
    seconds: float


def make_maps(
    build: Callable[[Classifier], Explainer],
    classifier: Classifier,
    levels: Callable[[], Sequence[Classifier]],
    draws: Callable[[], Sequence[Sequence[Classifier]]],
    subjects: Subjects,
    seeds: Tensor,
    maps: Array | None = None,
    again: Array | None = None,
) -> MethodMaps:
    """All maps of one method; `maps` `[M, h, w]` and `again` `[M, n]`, if given, are not computed.

    Each explanation of an image draws its own random numbers from the image's seed (`seeds` `[M]`): with the same ones
    two maps would agree because of them. Slow methods explain only the first and last of the `levels`, and no `draws`.
    """
    method = build(classifier)
    every = np.ones(len(seeds), bool)
    chosen, checked = (subjects.slow, subjects.checked) if method.slow else (every, every)
    grid = method.grid(subjects.images)

    def explain(method: Explainer, images: Tensor, which: NDArray[np.bool_], purpose: str) -> tuple[Array, Sets]:
        rows = torch.from_numpy(np.nonzero(which)[0])
        fresh = _fresh(seeds[rows], purpose) if purpose else seeds[rows]
        on_device = rows.to(images.device)
        values, sets = explain_in_batches(method, images[on_device], subjects.targets[on_device], fresh)
        result = np.full((len(seeds), *values.shape[1:]), np.nan)
        result[which] = values.double().numpy()
        placed: Sets = [[] for _ in seeds] if sets else []
        for row, of_image in zip(rows.tolist(), sets, strict=bool(sets)):
            placed[row] = of_image
        return result, placed

    def cells(method: Explainer, images: Tensor, purpose: str) -> Array:
        if not checked.any():
            return np.full((len(seeds), math.prod(grid)), np.nan)
        values = torch.from_numpy(explain(method, images, checked, purpose)[0])
        return np.asarray(cell_means(values, grid).flatten(1).numpy())

    def spent() -> Array:
        return np.array([classifier.forwards, classifier.backwards, time.perf_counter()])

    before = spent()
    if maps is None:
        first, sets = explain(method, subjects.images, chosen, "")
        cost = (spent() - before) / chosen.sum()
        noisy = cells(method, subjects.noisy, "noise")
    else:
        first, sets = maps, []
        noisy = cells(method, subjects.noisy, "noise")
        cost = (spent() - before) / max(1, checked.sum())
    if again is None:
        again = cells(method, subjects.images, "again") if method.seeded else np.full_like(noisy, np.nan)
    classifiers = levels()
    random = np.full((len(classifiers), *noisy.shape), np.nan)
    for level, other in enumerate(classifiers):
        if not method.slow or level in (0, len(classifiers) - 1):
            random[level] = cells(build(other), subjects.images, f"level {level}")
    more = [] if method.slow else draws()
    drawn = [[cells(build(o), subjects.images, f"draw {d}, {e}") for e, o in enumerate(ends)] for d, ends in enumerate(more)]  # fmt: skip
    return MethodMaps(first, sets, again, noisy, random, np.array(drawn).reshape(-1, 2, *noisy.shape), *cost.tolist())


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
    trains would undo its randomisation. Each classifier's maps draw their own random numbers from `seeds` `[M]`.
    """
    result = []
    spread = data[0].features[0].float().std()
    for level, (classifier, training) in enumerate(zip(classifiers, data, strict=True)):
        scale = float(spread / training.features[0].float().std())
        scaled = replace(training, features=training.features * torch.tensor(scale).to(training.features))
        method = build(classifier.with_scaled_features(scale))
        method.load(method.fit(scaled, [seed]))
        fresh = _fresh(seeds, f"retrained {level}")
        result.append(cell_maps(method, images, targets, fresh, method.grid(images)).numpy())
    return np.stack(result)


def maps_of_classes(method: Explainer, images: Tensor, targets: Tensor, seeds: Tensor) -> Tensor:
    """Maps `[K, M, h, w]` of K classes of each image, `targets` `[K, M]`; each draws its own random numbers from `seeds` `[M]`."""
    each = [(of_class, _fresh(seeds, f"class {place}")) for place, of_class in enumerate(targets)]
    return torch.stack([explain_in_batches(method, images, *of_class)[0] for of_class in each])


def _fresh(seeds: Tensor, purpose: str) -> Tensor:
    """The images' seeds for another explanation."""
    return torch.tensor([derive_seed(seed, purpose) for seed in seeds.tolist()], dtype=torch.int64)


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
