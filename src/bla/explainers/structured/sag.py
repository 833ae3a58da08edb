"""SAG: which small sets of patches suffice for the prediction?

Shitole et al. 2021, structured attention graphs. Only some patches of the image are shown, the rest is black. A set of
patches is sufficient if the class keeps 0.9 of its probability on the whole image; a beam search finds minimal ones
(`bla.explainers.sufficient_sets`). Candidates come in the order of a cheap map, the guide: Grad-CAM, or I-GOS with two
iterations (authors), whose noise is then the same for every image, and whose mask is no coarser than the feature map.
Patches are upsampled bilinearly with aligned corners, so that their edges are soft. Black pixels, normalised, are the
normalised black image: hiding before or after the normalisation is the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Le
from torch import Tensor
from torch.nn.functional import interpolate

from bla.base.specs import FORBID_EXTRA, Count
from bla.explainers.interface import Card, Explainer, Sets, StructuredExplainer
from bla.explainers.mask_optimisation import MaskSettings
from bla.explainers.occlusion import Masks, occluded_logits
from bla.explainers.optimised.i_gos import IGos
from bla.explainers.posthoc.grad_cam import GradCAM
from bla.explainers.sufficient_sets import MOST_SETS, Beam, Cells, Found, minimal_sets, run_together
from bla.networks.classifier import Classifier
from bla.networks.patches import Grid, batch_size_for, cell_means

Places = Annotated[int, Ge(ge=1), Le(le=1000)]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The beam search: its width, additions per set and sets at most.

    `images` is how many images it explains. `legacy_beam` is the authors' beam (`Beam.legacy`).
    """

    __pydantic_config__: ClassVar = FORBID_EXTRA

    beam: Places = 3
    successors: Places = 15
    sets: Annotated[int, Ge(ge=1), Le(le=MOST_SETS)] = 10
    guide: Literal["grad_cam", "i_gos"] = "grad_cam"
    legacy_beam: bool = False
    images: Count = 8


class SAG(StructuredExplainer):
    """Minimal sufficient sets of patches; the map is the share of the sets that hold a patch."""

    title = "SAG"
    card = Card(
        sentence="The share of the minimal sufficient sets of patches that hold a patch.",
        source="Shitole et al. 2021",
        needs="class scores, and what the guide needs",
        cost="the guide's, and up to 45 forward passes for each size of set",
        proof="tests/explainers/test_sag.py: boolean classifiers, exhaustive search",
    )
    Settings = Settings
    slow = True
    few = True

    def explain_with_sets(self, images: Tensor, targets: Tensor, seeds: Tensor) -> tuple[Tensor, Sets]:
        """Maps `[B, h, w]` and the sets found, small ones first.

        Where the black image alone keeps 0.9 of the confidence, the only set is the guide's first patch.
        """
        grid = self.grid(images)
        orders = self._orders(images, targets, seeds, grid)
        sets = [
            found.sets if found.sets != [[]] else [[order[0]]]
            for found, order in zip(self.search(images, targets, orders, grid), orders, strict=True)
        ]
        maps = torch.zeros(len(images), grid[0] * grid[1])
        for row, of_image in zip(maps, sets, strict=True):
            for cells in of_image:
                row[cells] += 1 / len(of_image)
        return maps.view(-1, *grid).to(images.device), sets

    def search(self, images: Tensor, targets: Tensor, orders: list[list[int]], grid: Grid) -> list[Found]:
        """What the beam search finds for each image, all images at once."""
        spec = self.settings
        beam = Beam(width=spec.beam, successors=spec.successors, limit=spec.sets, legacy=spec.legacy_beam)
        confidence = ShownCells(self.classifier, images, targets, grid)
        return run_together([minimal_sets(order, beam) for order in orders], confidence.relative)

    def _orders(self, images: Tensor, targets: Tensor, seeds: Tensor, grid: Grid) -> list[list[int]]:
        """The cells of each image, the most important for the guide first."""
        if self.settings.guide == "i_gos":
            guide: Explainer = IGos(self.classifier, MaskSettings(iterations=2, size=max(MaskSettings.size, *grid)))
        else:
            guide = GradCAM(self.classifier)
        maps = guide.explain(images, targets, torch.zeros_like(seeds))
        cells = cell_means(maps.double(), grid).flatten(1)
        scale = cells.abs().amax(dim=1, keepdim=True).clamp(min=1e-30)
        rounded = (cells / scale).round(decimals=4)  # so that rounding errors decide no order
        orders: list[list[int]] = rounded.argsort(dim=1, descending=True, stable=True).tolist()
        return orders


class ShownCells:
    """The confidence of a classifier in each image's target class, from some of its cells."""

    def __init__(self, classifier: Classifier, images: Tensor, targets: Tensor, grid: Grid) -> None:
        """Images uint8 `[N, H, W, 3]`, targets `[N]`; BlaError, here and later, if a class score is not finite."""
        self.classifier, self.images, self.targets, self.grid = classifier, images, targets.to(images.device), grid
        self.whole = self._of(torch.arange(len(images)), torch.ones(len(images), grid[0] * grid[1]))

    def relative(self, rows: list[int], sets: list[Cells]) -> list[float]:
        """The probabilities `[P]` of the target with only these cells, divided by that of the whole image."""
        numbers = torch.tensor(rows)
        shown = torch.zeros(len(sets), self.grid[0] * self.grid[1])
        for pattern, cells in zip(shown, sets, strict=True):
            pattern[list(cells)] = 1
        values: list[float] = (self._of(numbers, shown) / self.whole[numbers]).tolist()
        return values

    def _of(self, rows: Tensor, shown: Tensor) -> Tensor:
        """Probabilities `[P]` of the targets of images `rows`, double, at least 1e-30, on the CPU."""
        device, parts = self.images.device, []
        size = batch_size_for(device, self.images.shape[1:3])
        for numbers, patterns in zip(rows.to(device).split(size), shown.to(device).split(size), strict=True):
            masks = corner_masks(patterns.view(-1, 1, *self.grid), self.images.shape[1:3])
            logits = torch.cat(list(occluded_logits(self.classifier, self.images[numbers], masks, 1)), dim=1)[0]
            likely = self.classifier.probabilities(logits.double()).gather(1, self.targets[numbers][:, None])
            parts.append(likely[:, 0].cpu())
        return torch.cat(parts).clamp(min=1e-30)


def corner_masks(patterns: Tensor, size: Sequence[int]) -> Masks:
    """Patterns `[N, P, h, w]` in [0, 1], upsampled bilinearly with aligned corners to the size of the image."""
    return lambda image, number: interpolate(
        patterns[image, number][:, None], list(size), mode="bilinear", align_corners=True
    )[:, 0]
