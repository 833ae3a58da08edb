"""A map of random numbers, one per cell, drawn from the image's seed. A control: the score of knowing nothing."""

import torch
from torch import Tensor

from bla.explainers.interface import Card, Explainer


class Random(Explainer):
    """Uniform random numbers on the grid of the feature map."""

    title = "random"
    card = Card(
        sentence="Random numbers on the cells of the feature map.",
        source="control",
        needs="nothing",
        cost="no forward pass",
        proof="tests/explainers/test_controls.py: its distribution",
    )
    seeded = True
    control = True
    ignores_image = True
    class_specific = False

    def explain(self, images: Tensor, targets: Tensor, seeds: Tensor) -> Tensor:
        """Numbers in [0, 1), `[B, h, w]`."""
        grid = self.grid(images)
        generators = [torch.Generator().manual_seed(seed) for seed in seeds.tolist()]
        return torch.stack([torch.rand(*grid, generator=g) for g in generators]).to(images.device)
