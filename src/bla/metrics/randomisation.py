"""Sanity checks: does a map change when what the classifier has learned is taken away?

Adebayo et al. 2018. The cascade starts with the head and makes one more layer random at a time, from the last to the
first. Every parameter is drawn anew from a normal distribution with the mean and spread that it has (one without spread
stays). Batch normalisation in random layers measures its statistics anew, as training would have: with the old ones the
activations of a deep random network grow layer by layer beyond any use. Hence the classifier must not be folded.

    for level, random in zip(cascade_levels(classifier), cascade(classifier, seed, images)):
        maps = GradCAM(random).explain(images, targets, seeds)
"""

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from bla.networks.backbones import fold_batch_norm
from bla.networks.classifier import Classifier
from bla.runtime.seeds import derive_seed


def cascade(classifier: Classifier, seed: int, images: Tensor) -> Iterator[Classifier]:
    """The classifier with a random head, then with one more random layer each time, down to the first; copies.

    Batch normalisation in random layers takes the mean and variance of its input for `images` (uint8 `[B, H, W, 3]`).
    """
    random = copy.deepcopy(classifier)
    if random.is_pooled:
        _randomise(list(random.tail.parameters()), derive_seed(seed, "head"))
        yield copy.deepcopy(random)
    norms: list[_BatchNorm] = []
    for name, layer in reversed(_layers_of(random)):
        _randomise(list(layer.parameters()), derive_seed(seed, name))
        norms += [part for part in layer.modules() if isinstance(part, _BatchNorm)]
        _measure(norms, random, images)
        yield copy.deepcopy(random)


def cascade_levels(classifier: Classifier) -> list[str]:
    """The names of the cascade's levels, in its order: the head, then the network's layers, the last one first.

    The head of a tail of the network's own is its last layer.
    """
    return [*(["head"] if classifier.is_pooled else []), *(name for name, _ in reversed(_layers_of(classifier)))]


def _layers_of(classifier: Classifier) -> list[tuple[str, nn.Module]]:
    parts = classifier.extractor.network.parts  # type: ignore[union-attr]
    return [layer for part in parts for layer in layers(part)]  # type: ignore[union-attr]


def layers(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """The layers of a backbone that have parameters, from the first to the last; lists of blocks are opened."""
    found: list[tuple[str, nn.Module]] = []
    for name, child in model.named_children():
        opened = isinstance(child, nn.Sequential | nn.ModuleList) or type(child) is nn.Module  # as torch.fx names one
        inner = list(child.named_children()) if opened else []
        parts = [(f"{name}.{key}", part) for key, part in inner] or [(name, child)]
        found += [(label, part) for label, part in parts if any(True for _ in part.parameters())]
    return found


@torch.no_grad()
def _measure(norms: list[_BatchNorm], classifier: Classifier, images: Tensor) -> None:
    """Let batch normalisations take their statistics from one pass of images."""
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a mean over passes, of which there is one
        norm.train()
    if norms:
        classifier.logits(classifier.extractor.feature_map(images))  # type: ignore[operator]
    for norm in norms:
        norm.eval()


@torch.no_grad()
def _randomise(parameters: list[Tensor], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for values in parameters:
        noise = torch.randn(values.shape, generator=generator).to(values.device)
        values.copy_(values.mean() + values.std(correction=0) * noise)


def folded_cascade(intact: Classifier, seed: int, images: Tensor) -> list[Classifier]:
    """`cascade`, with batch normalisation folded into the convolutions for faster inference; on the device of the images."""
    classifiers = [random.cpu() for random in cascade(intact, seed, images)]
    folded = [random.with_extractor(fold_batch_norm(random.extractor)) for random in classifiers]  # type: ignore[arg-type]
    return [random.to(images.device).eval() for random in folded]
