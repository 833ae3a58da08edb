"""iGOS++: two masks, one for deletion and one for insertion, and their product, which must do both.

Khorram, Lawson and Li 2021. The objective is half of D(M1) - I(M2) + D(M1 M2) - I(M1 M2), plus area and bilateral total
variation of M1 M2: see `bla.explainers.mask_optimisation`. The authors' code halves the gradient of the scores but not the
scores that its line search compares; here both are halved, so that one function is minimised.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from bla.base.specs import Count
from bla.explainers.interface import Card
from bla.explainers.mask_optimisation import MaskSettings, Path, bilateral_variation
from bla.explainers.optimised.i_gos import IGos


@dataclass(frozen=True, kw_only=True)
class IGosPPSettings(MaskSettings):
    """As I-GOS."""

    images: Count = 2


class IGosPP(IGos):
    """iGOS++; a map is 1 - M1 M2."""

    title = "iGOS++"
    card = Card(
        sentence="The smallest part of the image whose deletion makes the class improbable, and which alone is enough for it.",
        source="Khorram, Lawson and Li 2021",
        needs="gradients with respect to pixels",
        cost="at most 1,200 forward and backward passes, and 60 forward passes for each step that is tried",
        proof="as I-GOS",
    )
    Settings: ClassVar = IGosPPSettings
    masks: ClassVar[int] = 2
    paths: ClassVar[Sequence[Path]] = (
        Path(inserts=False, masks=(0,), weight=0.5),
        Path(inserts=True, masks=(1,), weight=0.5),
        Path(inserts=False, masks=(0, 1), weight=0.5),
        Path(inserts=True, masks=(0, 1), weight=0.5),
    )

    @staticmethod
    def variation(masks: Tensor, images: Tensor) -> Tensor:
        """The roughness `[B]` of masks `[B, s, s]`, less over the edges of the normalised images `[B, H, W, 3]`."""
        return bilateral_variation(masks, images)
