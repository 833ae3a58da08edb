"""A map that says nothing: every place matters alike. A control."""

import torch
from torch import Tensor

from bla.explainers.interface import Explainer


class Constant(Explainer):
    """One everywhere."""

    title = "constant"
    control = True
    class_specific = False

    def explain(self, images: Tensor, targets: Tensor, seeds: Tensor) -> Tensor:
        """Ones `[B, H, W]`."""
        return torch.ones(images.shape[:3], device=images.device)
