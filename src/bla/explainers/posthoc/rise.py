"""RISE: the mean of random masks, weighted by what the classifier says of the image seen through each.

Petsiuk et al. 2018. A mask is a grid of `grid` x `grid` cells, each shown with probability `presence`, upsampled bilinearly
to one cell more than the image and cut at a random offset; what it hides becomes the mean colour. With f the class's
probability the map is sum_i f(x * M_i) M_i / (N presence).
"""

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from bla.explainers.interface import Explainer
from bla.explainers.occlusion import Masks, occluded_logits, target_scores
from bla.networks.classifier import Classifier


class RISE(Explainer):
    """RISE with `masks` random masks an image."""

    title = "RISE"
    slow = True

    def __init__(self, classifier: Classifier, masks: int = 1000, presence: float = 0.5, grid: int = 7) -> None:
        super().__init__(classifier)
        self.masks, self.presence, self.cells = masks, presence, grid

    @torch.no_grad()
    def explain(self, images: Tensor, targets: Tensor, seeds: Tensor) -> Tensor:
        """Maps `[B, H, W]` at the resolution of the image."""
        device = self.classifier.head_weight.device
        masks = random_masks(seeds, self.masks, self.cells, self.presence, images.shape[1], device)
        grey = self.classifier.extractor.mean.flatten()
        maps = []
        for number, logits in enumerate(occluded_logits(self.classifier, images, masks, self.masks, grey)):
            scores = target_scores(logits, targets[number : number + 1])[0]
            total = torch.zeros(images.shape[1:3], device=device)
            for some in torch.arange(self.masks, device=device).split(64):
                total += torch.einsum("p,phw->hw", scores[some], masks(torch.full_like(some, number), some))
            maps.append(total / (self.masks * self.presence))
        return torch.stack(maps)


def random_masks(seeds: Tensor, count: int, grid: int, presence: float, side: int, device: torch.device) -> Masks:
    """`count` masks for each image, `[side, side]` in [0, 1], drawn from its seed."""
    cell = -(-side // grid)
    cells, offsets = [], []
    for seed in seeds.tolist():
        generator = torch.Generator().manual_seed(seed)
        cells.append(torch.rand(count, grid, grid, generator=generator) < presence)
        offsets.append(torch.randint(0, cell, (count, 2), generator=generator))
    shown, offset = torch.stack(cells).float().to(device), torch.stack(offsets).to(device)
    pixels = torch.arange(side, device=device)

    def masks(image: Tensor, number: Tensor) -> Tensor:
        size = (grid + 1) * cell
        large = interpolate(shown[image, number][:, None], (size, size), mode="bilinear")[:, 0]
        rows, columns = offset[image, number].unbind(dim=1)
        each = torch.arange(len(image), device=device)[:, None, None]
        return large[each, (rows[:, None] + pixels)[:, :, None], (columns[:, None] + pixels)[:, None, :]]

    return masks
