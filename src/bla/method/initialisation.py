"""Untrained heads and explanation modules: Glorot-uniform weights, biases 0 (Keras' defaults, as in the authors' code)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from bla.base.specs import ConceptVector, Explaining
from bla.method.modules import Concept, Head, Module
from bla.runtime.generators import generators_of


def glorot(shape: tuple[int, ...], fan_in: int, fan_out: int, generators: Sequence[torch.Generator]) -> Tensor:
    """Glorot-uniform numbers `[R, *shape]`, those of run r from generator r."""
    limit = (6 / (fan_in + fan_out)) ** 0.5
    return torch.stack([(torch.rand(shape, generator=g) * 2 - 1) * limit for g in generators])


def initial_head(seeds: Sequence[int], channels: int, classes: int) -> Head:
    """Untrained heads: Glorot-uniform weights, biases 0 (Keras' defaults)."""
    weight = glorot((classes, channels), channels, classes, generators_of(seeds))
    return Head(weight, torch.zeros(len(seeds), classes))


def initial_module(variant: Explaining, cells: int, channels: int, generators: Sequence[torch.Generator]) -> Module:
    """Untrained modules: Glorot-uniform weights, biases 0; a concept vector's weights are drawn after the module's."""
    runs = len(generators)
    weight, concept = glorot((channels,), channels, 1, generators), None
    if isinstance(variant, ConceptVector):
        dense = glorot((channels, cells * channels), cells * channels, channels, generators)
        concept = Concept(dense, torch.zeros(runs, channels), variant.activation == "relu")
    return Module(weight, torch.zeros(runs), concept)
