"""All maps of one method: of some images, of the same images with noise, and of classifiers that are more and more random.

    arrays = make_maps(GradCAM, classifier, lambda: random, images, targets, seeds, slow, checked, noise=0.02)

And maps of explanation modules that are trained anew on random classifiers, since a module never reads the head.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bla.base.specs import BoundedLogits, Explaining, Schedule
from bla.explainers.interface import Explainer, add_noise, cell_maps
from bla.explainers.learned.attention import Attention
from bla.explainers.posthoc.cam import cam
from bla.method.equations import logits_of, soft_weights, threshold
from bla.method.modules import Head, Module
from bla.method.training import train
from bla.networks.backbones import batch_size_for
from bla.networks.classifier import Classifier

Array = NDArray[np.float64]


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
) -> dict[str, Array]:
    """Maps `[M, n]` at the resolution of the cells, NaN for images that were left out.

    A slow method explains the images that are `slow` (bool `[M]`), and again those that are `checked`; another method
    explains all. Returns `maps` (those that are given, if they are there already), `noise`, of images with noise of this
    standard deviation, `random` `[L, M, n]`, of each of the L classifiers of `randomised()` (a slow method: of the first
    and the last), and `forwards`, the number of forward passes that one map took.
    """
    method = build(classifier)
    every = np.ones(len(targets), bool)
    chosen, again = (slow, checked) if method.slow else (every, every)
    grid = method.grid(images)

    def explain(method: Explainer, images: Tensor, which: NDArray[np.bool_]) -> Array:
        found = np.full((len(targets), grid * grid), np.nan)
        rows = torch.from_numpy(np.nonzero(which)[0])
        there = rows.to(images.device)
        found[which] = cell_maps(method, images[there], targets[there], seeds[rows], grid).numpy()
        return found

    first = explain(method, images, chosen) if maps is None else maps
    before = classifier.forwards
    noisy = explain(method, add_noise(images, noise, seeds), again)
    forwards = (classifier.forwards - before) / again.sum()
    classifiers = randomised()
    random = np.full((len(classifiers), *first.shape), np.nan)
    for level, other in enumerate(classifiers):
        if not method.slow or level in (0, len(classifiers) - 1):
            random[level] = explain(build(other), images, again)
    return {"maps": first, "noise": noisy, "random": random, "forwards": np.array(forwards)}


def retrained_maps(
    variant: Explaining,
    classifiers: Sequence[Classifier],
    features: Sequence[Tensor],
    labels: Tensor,
    schedule: Schedule,
    seed: int,
    images: Tensor,
) -> Array:
    """Maps `[L, M, n]` of modules trained on each of L classifiers, from their training features `[D, N, n, C]`.

    The head stays as it is whatever the variant says: one that trains would undo its randomisation. Modules are trained on
    features of the first classifier's spread, since those of a random network without normalisation may be of any size.
    """
    found = []
    spread = features[0].float().std()
    for classifier, own in zip(classifiers, features, strict=True):
        scale = spread / own.float().std()
        head = Head(classifier.head_weight.detach(), classifier.head_bias.detach())
        frozen = replace(variant, head="frozen")
        module = train(own * scale.to(own.dtype), labels, frozen, head, [seed], schedule, schedule.epochs).module
        assert module is not None
        method = Attention(
            classifier, variant, Module(module.weight.to(own.device) * scale, module.bias.to(own.device))
        )
        ignored = torch.zeros(len(images), dtype=torch.int64, device=images.device)
        found.append(cell_maps(method, images, ignored, ignored, method.grid(images)).numpy())
    return np.stack(found)


@torch.no_grad()
def features_of(classifier: Classifier, images: Tensor) -> Tensor:
    """The features `[1, N, n, C]` that a classifier's backbone gives for images `[N, H, W, 3]`, one draw, on its device."""
    device = classifier.head_weight.device
    parts = images.split(batch_size_for(device, images.shape[1]))
    return torch.cat([classifier.features(part.to(device)).flatten(2).transpose(1, 2) for part in parts])[None]


def maps_of_all_runs(
    features: Tensor, head_weight: Tensor, targets: Tensor, modules: Mapping[str, tuple[Explaining, Module]]
) -> dict[str, Array]:
    """Table 2's maps `[R, M, n]` of every run, from features `[M, n, C]`: CAM, Grad-CAM, and the variants' soft weights.

    `head_weight` is `[R, K, C]`, `targets` `[R, M]`; `modules` are the variants' of all runs. Where a variant has a threshold its
    weights after it are there too, as KEY_after_threshold.
    """
    maps = {"cam": cam(features, head_weight, targets).double()}
    maps["grad_cam"] = maps["cam"].clip(min=0)
    for key, (variant, module) in modules.items():
        soft = maps[key] = soft_weights(logits_of(variant, module(features)).double(), variant.temperature)
        if isinstance(variant, BoundedLogits) and variant.threshold_factor:
            maps[f"{key}_after_threshold"] = threshold(soft, variant.threshold_factor, variant.threshold_rule)
    return {name: values.cpu().numpy() for name, values in maps.items()}
