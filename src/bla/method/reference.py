"""A plain training loop over one model of torch modules: the reference that tests compare `training` with.

    trained = train_one(features[None], labels, bla_t, head, seed, schedule)      # what run 0 of `train` computes

It is slow; `training` does the same for many runs at once. Both draw random numbers in the same order.

Source: Baumhauer et al. 2021, sections 3.1, 3.3 and 4.2.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from bla.base.specs import ConceptVector, NoExplanation, Schedule, Variant
from bla.method.equations import logits_of, noise_shape, soft_explanation
from bla.method.modules import Concept, Head, Module, Trained
from bla.runtime.seeds import derive_seed


def train_one(
    features: Tensor, labels: Tensor, variant: Variant, head: Head, seed: int, schedule: Schedule, run: int = 0
) -> Trained:
    """Train one run from its head on D draws of features `[D, N, n, C]` and labels `[N]` or `[N, K]`.

    `head` and the result have R = 1. In each epoch, run number `run` reads draw (run + epoch) mod D.
    """
    draws, images, cells, channels = features.shape
    order_of, dropout_of, noise_of = (_generator(seed, what) for what in ("order", "dropout", "noise"))
    linear = nn.Linear(channels, head.weight.shape[1])
    linear.weight.data, linear.bias.data = head.weight[0].clone(), head.bias[0].clone()
    convolution, dense = _modules(variant, cells, channels, seed)
    layers = [*([] if variant.head == "frozen" else [linear]), *(layer for layer in (convolution, dense) if layer)]
    parameters = [parameter for layer in layers for parameter in layer.parameters()]
    optimiser = torch.optim.Adam(parameters, lr=schedule.learning_rate, eps=schedule.adam_epsilon)
    losses = []
    for epoch in range(schedule.epochs):
        total = 0.0
        for batch in torch.randperm(images, generator=order_of).split(schedule.batch_size):
            f = features[(run + epoch) % draws, batch].float()  # [B, n, C]
            v = _pooled(variant, convolution, dense, f, noise_of)
            if schedule.dropout:
                v = v * (torch.rand(v.shape, generator=dropout_of) >= schedule.dropout) / (1 - schedule.dropout)
            loss = _loss(linear(v), labels[batch])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total += loss.item() * len(batch)
        losses.append(total / images)
    trained = Head(linear.weight.detach()[None], linear.bias.detach()[None])
    if variant.head == "trained_reloaded":
        trained = head
    module = None
    if convolution:
        rectified = isinstance(variant, ConceptVector) and variant.activation == "relu"
        concept = Concept(dense.weight.detach()[None], dense.bias.detach()[None], rectified) if dense else None
        bias = convolution.bias
        assert bias is not None
        module = Module(convolution.weight.detach().view(1, channels), bias.detach(), concept)
    return Trained(trained, module, torch.tensor([losses]))


def _loss(scores: Tensor, labels: Tensor) -> Tensor:
    """The mean loss of scores `[B, K]`: cross-entropy, or for multi-hot labels binary cross-entropy summed over classes."""
    if labels.ndim == 1:
        return cross_entropy(scores, labels)
    return binary_cross_entropy_with_logits(scores, labels.float(), reduction="sum") / len(labels)


def _pooled(
    variant: Variant, convolution: nn.Conv1d | None, dense: nn.Linear | None, f: Tensor, noise_of: torch.Generator
) -> Tensor:
    """Features `[B, n, C]` pooled with the variant's weights, or equal ones without a module: `[B, C]`."""
    if isinstance(variant, NoExplanation) or convolution is None:
        return f.mean(dim=1)
    images, cells, _ = f.shape
    shape = noise_shape(variant, cells)
    noise = None if shape is None else torch.rand(images, *shape, generator=noise_of)
    g = convolution((f + _shift(variant, dense, f)).transpose(1, 2))[:, 0]
    q = soft_explanation(variant, logits_of(variant, g), noise)
    return torch.stack([q[:, i, None] * f[:, i] for i in range(cells)]).sum(dim=0)


def _shift(variant: Variant, dense: nn.Linear | None, f: Tensor) -> Tensor | float:
    """The concept vector `[B, 1, C]` that is added to every cell, or 0."""
    if dense is None or not isinstance(variant, ConceptVector):
        return 0
    vector: Tensor = dense(f.flatten(1))
    return (vector.relu() if variant.activation == "relu" else vector)[:, None]


def _modules(variant: Variant, cells: int, channels: int, seed: int) -> tuple[nn.Conv1d | None, nn.Linear | None]:
    """The untrained 1x1 convolution and dense layer of the variant, if it has them: Glorot-uniform, biases 0."""
    if isinstance(variant, NoExplanation):
        return None, None
    generator = torch.Generator().manual_seed(seed)

    def glorot(*shape: int, fan_out: int) -> nn.Parameter:
        limit = (6 / (shape[-1] + fan_out)) ** 0.5
        return nn.Parameter((torch.rand(shape, generator=generator) * 2 - 1) * limit)

    convolution = nn.Conv1d(channels, 1, 1)
    convolution.weight = nn.Parameter(glorot(channels, fan_out=1).view(1, channels, 1).detach())
    convolution.bias = nn.Parameter(torch.zeros(1))
    if not isinstance(variant, ConceptVector):
        return convolution, None
    dense = nn.Linear(cells * channels, channels)
    dense.weight, dense.bias = glorot(channels, cells * channels, fan_out=channels), nn.Parameter(torch.zeros(channels))
    return convolution, dense


def _generator(seed: int, name: str) -> torch.Generator:
    return torch.Generator().manual_seed(derive_seed(seed, name))
