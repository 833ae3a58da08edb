"""Sanity checks: does a map change when the classifier's weights are randomised?

Adebayo et al. 2018. The cascade randomises the head first, then one more layer at a time, from the last to the first. A
parameter tensor is redrawn from a normal distribution with its own mean and standard deviation (constant tensors stay).
Batch normalisation in random layers gets new statistics, as it would in training: with the old ones the activations of
a deep random network explode. Hence batch normalisation must not be folded.

    for level, random in zip(cascade_levels(classifier), cascade(classifier, seed, images)):
        maps = GradCAM(random).explain(images, targets, seeds)
"""

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from bla.networks.classifier import Classifier
from bla.networks.folding import fold_batch_norm
from bla.runtime.seeds import derive_seed


def cascade(classifier: Classifier, seed: int, images: Tensor, ends: bool = False) -> Iterator[Classifier]:
    """Yield copies of the classifier with a random head, then with one more random layer each time.

    With `ends` only the first and the last of these. Batch normalisation in random layers takes the mean and variance
    of its input for `images` (uint8 `[B, H, W, 3]`).
    """
    random = copy.deepcopy(classifier)
    if random.is_pooled:
        _randomise(list(random.tail.parameters()), derive_seed(seed, "head"))
        yield copy.deepcopy(random)
    norms: list[_BatchNorm] = []
    parts = list(reversed(_layers_of(random)))
    first = not random.is_pooled
    for number, (name, layer) in enumerate(parts):
        _randomise(list(layer.parameters()), derive_seed(seed, name))
        norms += [part for part in layer.modules() if isinstance(part, _BatchNorm)]
        if not ends or (first and number == 0) or number == len(parts) - 1:
            _measure(norms, random, images)
            yield copy.deepcopy(random)


def cascade_levels(classifier: Classifier) -> list[str]:
    """The names of the cascade's levels in order: the head, then the network's layers, last to first.

    A network's own tail has no separate head: its last layer comes first.
    """
    return [*(["head"] if classifier.is_pooled else []), *(name for name, _ in reversed(_layers_of(classifier)))]


def _layers_of(classifier: Classifier) -> list[tuple[str, nn.Module]]:
    parts = classifier.extractor.network.parts  # type: ignore[union-attr]
    return [layer for part in parts for layer in layers(part)]  # type: ignore[union-attr]


def layers(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """The layers of a backbone with parameters, first to last; a list of blocks counts as its blocks."""
    result: list[tuple[str, nn.Module]] = []
    for name, child in model.named_children():
        opened = (
            isinstance(child, nn.Sequential | nn.ModuleList) or type(child) is nn.Module
        )  # a container made by torch.fx
        inner = list(child.named_children()) if opened else []
        parts = [(f"{name}.{key}", part) for key, part in inner] or [(name, child)]
        result += [(label, part) for label, part in parts if any(True for _ in part.parameters())]
    return result


@torch.no_grad()
def _measure(norms: list[_BatchNorm], classifier: Classifier, images: Tensor) -> None:
    """Set the statistics of batch normalisations from one pass over the images."""
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the average over all passes; here there is one
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


def folded_cascade(intact: Classifier, seed: int, images: Tensor, ends: bool = False) -> list[Classifier]:
    """`cascade` with batch normalisation folded into convolutions for faster inference; on the images' device."""
    classifiers = [random.cpu() for random in cascade(intact, seed, images, ends)]
    folded = [random.with_extractor(fold_batch_norm(random.extractor)) for random in classifiers]  # type: ignore[arg-type]
    return [random.to(images.device).eval() for random in folded]
