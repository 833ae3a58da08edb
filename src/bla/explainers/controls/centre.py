"""A map that always points to the middle of the image, where photographers put things. A control."""

import torch
from torch import Tensor

from bla.explainers.interface import Card, Explainer


class Centre(Explainer):
    """A Gaussian around the centre, a quarter of the side wide."""

    title = "centre"
    card = Card(
        sentence="Every image gets the same Gaussian around its centre.",
        source="control",
        needs="nothing",
        cost="no forward pass",
        proof="tests/explainers/test_controls.py: its formula",
    )
    control = True
    ignores_image = True
    class_specific = False

    def explain(self, images: Tensor, targets: Tensor, seeds: Tensor) -> Tensor:
        """The same map `[B, H, W]` for every image."""
        row, column = (
            ((torch.arange(side, device=images.device) + 0.5) / side - 0.5) ** 2 for side in images.shape[1:3]
        )
        return torch.exp(-(row[:, None] + column) / (2 * 0.25**2)).expand(len(images), -1, -1)
