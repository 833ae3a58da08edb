"""I-GOS: the smallest smooth part of the image whose deletion lowers the probability of the class.

Qi, Khorram and Li 2020. One mask for each image, optimised as `bla.explainers.mask_optimisation` says; constants are
those of the code that the authors of iGOS++ released.
"""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from bla.base.errors import BlaError
from bla.explainers.interface import Card, Explainer
from bla.explainers.mask_optimisation import (
    IMAGES_AT_ONCE,
    MaskSettings,
    Objective,
    Path,
    optimise,
    total_variation,
)


class IGos(Explainer):
    """I-GOS; a map is 1 - M."""

    title = "I-GOS"
    card = Card(
        sentence="The smallest smooth part of the image whose deletion makes the class improbable.",
        source="Qi, Khorram and Li 2020",
        needs="gradients with respect to pixels",
        cost="at most 300 forward and backward passes, and 15 forward passes for each step that is tried",
        proof="tests/explainers/test_mask_optimisation.py: classifiers whose optimal mask is known, gradients by differences",
    )
    Settings: ClassVar = MaskSettings
    settings: MaskSettings
    seeded = True
    slow = True
    few = True
    masks: ClassVar[int] = 1
    paths: ClassVar[Sequence[Path]] = (Path(inserts=False, masks=(0,), weight=1),)

    @staticmethod
    def variation(masks: Tensor, images: Tensor) -> Tensor:
        """The roughness `[B]` of masks `[B, s, s]` of normalised images."""
        return total_variation(masks, images)

    def explain(self, images: Tensor, targets: Tensor, seeds: Tensor) -> Tensor:
        """Maps `[B, s, s]` in [0, 1]; BlaError if s is smaller than the side of the feature map."""
        cells, size = max(self.grid(images)), self.settings.size
        if size < cells:
            raise BlaError(
                f"size: a mask of {size} x {size} is coarser than the feature map; set it to {cells} or more"
            )
        parts = zip(*(values.split(IMAGES_AT_ONCE) for values in (images, targets, seeds)), strict=True)
        return torch.cat([1 - self._optimised(*part).prod(dim=1).float() for part in parts])

    def _optimised(self, images: Tensor, targets: Tensor, seeds: Tensor) -> Tensor:
        """The optimised masks `[B, k, s, s]`."""
        return optimise(
            Objective(self.classifier, images, targets, seeds, self.settings, self.paths, self.variation), self.masks
        )
