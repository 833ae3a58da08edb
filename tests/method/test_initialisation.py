"""Untrained heads and modules: Glorot-uniform weights from a seed, biases 0."""

import torch

from bla.base.specs import BoundedLogits, ConceptVector
from bla.method.initialisation import initial_head, initial_module
from bla.runtime.generators import generators_of

BLA = BoundedLogits(explanation="bounded_logits", head="trained", temperature=0.1, threshold_factor=0)
CONCEPT = ConceptVector(explanation="concept_vector", head="trained", temperature=0.1, activation="linear")


def test_untrained_modules_are_glorot_uniform_with_zero_bias_and_differ_by_seed():
    channels = 1280
    module = initial_module(BLA, 49, channels, generators_of([1, 2]))
    limit = (6 / (channels + 1)) ** 0.5
    assert 0.99 * limit < module.weight.abs().max() <= limit
    assert abs(float(module.weight.std()) - limit / 3**0.5) < 0.03 * limit
    assert abs(float(module.weight.mean())) < 0.03 * limit
    assert not module.bias.any()
    assert not torch.equal(module.weight[0], module.weight[1])


def test_a_concept_vector_is_drawn_after_the_module():
    cells, channels = 9, 24
    plain, concept = (initial_module(variant, cells, channels, generators_of([1, 2])) for variant in (BLA, CONCEPT))
    assert plain.concept is None
    assert torch.equal(concept.weight, plain.weight)
    assert concept.concept.weight.shape == (2, channels, cells * channels)
    limit = (6 / (cells * channels + channels)) ** 0.5
    assert 0.99 * limit < concept.concept.weight.abs().max() <= limit
    assert not concept.concept.bias.any()


def test_untrained_heads_are_glorot_uniform_with_zero_bias_and_differ_by_seed():
    head = initial_head([1, 2], 1280, 20)
    limit = (6 / 1300) ** 0.5
    assert head.weight.shape == (2, 20, 1280)
    assert head.weight.abs().max() <= limit
    assert abs(float(head.weight.std()) - limit / 3**0.5) < 0.01 * limit
    assert not head.bias.any()
    assert not torch.equal(head.weight[0], head.weight[1])
