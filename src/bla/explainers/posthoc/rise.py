"""RISE: the mean of random masks, weighted by the class's probability for the image under each mask.

Petsiuk et al. 2018. A mask is a grid of `grid` x `grid` cells, each shown with probability `presence`, upsampled
bilinearly to one cell more than the image and cut at a random offset; hidden pixels get the mean colour. With f the
class's probability, the map is sum_i f(x * M_i) M_i / (N presence).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Le
from torch import Tensor
from torch.nn.functional import interpolate

from bla.base.specs import FORBID_EXTRA, Share
from bla.explainers.interface import Card, Explainer
from bla.explainers.occlusion import Masks, occluded_logits, target_scores


@dataclass(frozen=True, kw_only=True)
class Settings:
    """`masks` per image, of `grid` x `grid` cells that are shown with probability `presence`."""

    __pydantic_config__: ClassVar = FORBID_EXTRA

    masks: Annotated[int, Ge(ge=10), Le(le=1_000_000)] = 1000
    presence: Share = 0.5
    grid: Annotated[int, Ge(ge=2), Le(le=56)] = 7


class RISE(Explainer):
    """RISE at the resolution of the image."""

    title = "RISE"
    Settings = Settings
    card = Card(
        sentence="The mean of random masks, weighted by the probability of the class when only what they show is seen.",
        source="Petsiuk et al. 2018",
        needs="class scores alone",
        cost="1 forward pass per mask",
        proof="tests/explainers/test_posthoc.py: a plain loop over masks",
    )
    seeded = True
    slow = True

    @torch.no_grad()
    def explain(self, images: Tensor, targets: Tensor, seeds: Tensor) -> Tensor:
        """Maps `[B, H, W]` at the resolution of the image."""
        device, spec = self.classifier.device, self.settings
        masks = random_masks(seeds, spec.masks, spec.grid, spec.presence, images.shape[1:3], device)
        grey = self.classifier.extractor.mean.flatten()  # type: ignore[operator]
        maps = []
        for number, logits in enumerate(occluded_logits(self.classifier, images, masks, spec.masks, grey)):
            scores = target_scores(self.classifier, logits, targets[number : number + 1])[0]
            total = torch.zeros(images.shape[1:3], device=device)
            for some in torch.arange(spec.masks, device=device).split(64):
                total += torch.einsum("p,phw->hw", scores[some], masks(torch.full_like(some, number), some))
            maps.append(total / (spec.masks * spec.presence))
        return torch.stack(maps)


def random_masks(
    seeds: Tensor, count: int, grid: int, presence: float, size: Sequence[int], device: torch.device
) -> Masks:
    """`count` masks for each image, `[H, W]` of this `size` in [0, 1], drawn from its seed."""
    cell = [-(-side // grid) for side in size]
    cells, offsets = [], []
    for seed in seeds.tolist():
        generator = torch.Generator().manual_seed(seed)
        cells.append(torch.rand(count, grid, grid, generator=generator) < presence)
        if cell[0] == cell[1]:
            offsets.append(torch.randint(0, cell[0], (count, 2), generator=generator))
        else:
            offsets.append(torch.stack([torch.randint(0, c, (count,), generator=generator) for c in cell], dim=1))
    shown, offset = torch.stack(cells).float().to(device), torch.stack(offsets).to(device)
    # Bilinear: a mask is (down across^T) applied to the cells, with a column of weights for each row of cells, and each column.
    weights = [interpolate(torch.eye(grid)[None], (grid + 1) * c, mode="linear")[0].to(device) for c in cell]
    places = [torch.arange(side, device=device) for side in size]

    def masks(image: Tensor, number: Tensor) -> Tensor:
        chosen = offset[image, number]
        down, across = (
            w[:, start[:, None] + p] for w, start, p in zip(weights, chosen.unbind(dim=1), places, strict=True)
        )
        return down.permute(1, 2, 0) @ shown[image, number] @ across.permute(1, 0, 2)

    return masks
