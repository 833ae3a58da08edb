"""A map of random numbers, one a cell, drawn from the image's seed. A control: what knows nothing scores this."""

import torch
from torch import Tensor

from bla.classifier import Classifier
from bla.explainer import Explainer


class Random(Explainer):
    """Uniform random numbers on a grid."""

    title = "random"
    class_specific = False

    def __init__(self, classifier: Classifier, grid: int = 7) -> None:
        super().__init__(classifier)
        self.grid = grid

    def explain(self, images: Tensor, targets: Tensor, seeds: Tensor) -> Tensor:
        """Numbers in [0, 1), `[B, grid, grid]`."""
        generators = [torch.Generator().manual_seed(seed) for seed in seeds.tolist()]
        return torch.stack([torch.rand(self.grid, self.grid, generator=g) for g in generators]).to(images.device)
