"""Chen et al.'s two networks for the synthetic sets, for R runs at once: a selector and a predictor.

The selector gives every feature a score: two hidden layers of 100 units and a linear layer. The predictor sees the
features times the explanation and answers with a logit of class 1: two hidden layers of 200 units, each followed by
batch normalisation, and a linear layer. All tensors have runs first and samples last, `[R, units, B]`.

Source: Chen et al. 2018 and their code; initialisation as in Keras.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.functional import batch_norm

from bla.experiments.subset_selection.data import FEATURES
from bla.method.initialisation import glorot

SELECTOR, PREDICTOR = (FEATURES, 100, 100, FEATURES), (FEATURES, 200, 200, 1)
L2 = 1e-3
"""Factor of the squared weights in the loss, of all layers but the selector's last (Chen et al.'s code)."""
BATCH_NORM_EPSILON = 1e-3
"""Keras' default."""


@dataclass(frozen=True)
class Dense:
    """A dense layer: `weight` `[R, o, i]`, `bias` `[R, o, 1]`."""

    weight: Tensor
    bias: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """`[R, i, B]` to `[R, o, B]`."""
        return torch.baddbmm(self.bias, self.weight, x)


@dataclass(frozen=True)
class Norm:
    """Batch normalisation: `scale` and `shift`, which train, and `mean` and `variance` for tests, `[R * units]` each."""

    scale: Tensor
    shift: Tensor
    mean: Tensor
    variance: Tensor

    def __call__(self, x: Tensor, training: bool) -> Tensor:
        """`[R, units, B]` normalised by `mean` and `variance`; in training by the batch's, which replace these."""
        flat = x.reshape(1, -1, x.shape[-1])
        result = batch_norm(
            *(flat, self.mean, self.variance, self.scale, self.shift),
            training=training,
            momentum=1.0,
            eps=BATCH_NORM_EPSILON,
        )
        return result.view_as(x)


@dataclass(frozen=True)
class Networks:
    """Selectors and predictors of R runs."""

    selector: tuple[Dense, ...]
    predictor: tuple[Dense, ...]
    norms: tuple[Norm, ...]
    activation: Callable[[Tensor], Tensor]

    def scores(self, x: Tensor) -> Tensor:
        """The selector's score of every feature `[R, B, n]` for samples `[R, B, n]`."""
        hidden = x.transpose(1, 2)
        for layer in self.selector[:-1]:
            hidden = self.activation(layer(hidden))
        return self.selector[-1](hidden).transpose(1, 2)

    def answer(self, x: Tensor, training: bool) -> Tensor:
        """The predictor's logit of class 1 `[R, B]` for what it sees of the samples, `[R, B, n]`; `training`: see `Norm`."""
        hidden = x.transpose(1, 2)
        for layer, norm in zip(self.predictor[:-1], self.norms, strict=True):
            hidden = norm(self.activation(layer(hidden)), training)
        return self.predictor[-1](hidden)[:, 0]

    def penalty(self) -> Tensor:
        """The weights' penalty, summed over runs."""
        layers = (*self.selector[:-1], *self.predictor)
        return L2 * torch.stack([layer.weight.square().sum() for layer in layers]).sum()

    def parameters(self) -> list[Tensor]:
        """All that trains."""
        dense = [tensor for layer in (*self.selector, *self.predictor) for tensor in (layer.weight, layer.bias)]
        return dense + [tensor for norm in self.norms for tensor in (norm.scale, norm.shift)]


def initial(
    generators: Sequence[torch.Generator], activation: Callable[[Tensor], Tensor], device: torch.device
) -> Networks:
    """Untrained networks that require gradients: Glorot-uniform weights, biases 0, those of run r from generator r."""
    runs = len(generators)

    def layers(widths: tuple[int, ...]) -> tuple[Dense, ...]:
        return tuple(
            Dense(trained(glorot((o, i), i, o, generators)), trained(torch.zeros(runs, o, 1)))
            for i, o in pairwise(widths)
        )

    def trained(values: Tensor) -> Tensor:
        return values.to(device).requires_grad_()

    def norm(units: int) -> Norm:
        ones, zeros = torch.ones(runs * units, device=device), torch.zeros(runs * units, device=device)
        return Norm(trained(ones.clone()), trained(zeros.clone()), zeros, ones)

    return Networks(layers(SELECTOR), layers(PREDICTOR), tuple(norm(units) for units in PREDICTOR[1:-1]), activation)
