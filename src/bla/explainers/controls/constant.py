"""A map that is the same everywhere. A control."""

import torch
from torch import Tensor

from bla.explainers.interface import Card, Explainer


class Constant(Explainer):
    """One everywhere."""

    title = "constant"
    card = Card(
        sentence="Every place matters the same.",
        source="control",
        needs="nothing",
        cost="no forward pass",
        proof="tests/explainers/test_controls.py: its formula",
    )
    control = True
    ignores_image = True
    class_specific = False

    def explain(self, images: Tensor, targets: Tensor, seeds: Tensor) -> Tensor:
        """Ones `[B, H, W]`."""
        return torch.ones(images.shape[:3], device=images.device)
