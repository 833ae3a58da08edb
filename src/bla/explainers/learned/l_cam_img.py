"""L-CAM-Img: a mask for each class, learned by masking the images; every training step passes through the whole network.

Gkartzonika, Gkalelis and Mezaris 2022. Objective, training and maps: `bla.explainers.l_cam`. The mask is computed from
the cached features, so that a step takes one pass forward and one backward, where the authors' code takes two forward.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from bla.base.specs import Count, LearningRate
from bla.explainers.interface import Card, TrainingData
from bla.explainers.l_cam import LCamSettings, Masked
from bla.explainers.learned.l_cam_fm import LCamFm
from bla.networks.patches import batch_size_for


@dataclass(frozen=True, kw_only=True)
class LCamImgSettings(LCamSettings):
    """As L-CAM-Fm; `background` shows through where the mask is 0; it trains the first `runs` on at most `images` images.

    `black` is the authors' choice; `mean`, the mean colour of the network's normalisation, that of T-TAME.
    """

    background: Literal["black", "mean"] = "black"
    runs: Count = 2
    images: Count = 200
    learning_rate: LearningRate = 0.001  # of 0.001, 0.003, 0.01 and 0.1 the lowest loss on painted birds
    batch_size: Count = 8


class LCamImg(LCamFm):
    """L-CAM-Fm, but masks are enlarged and weigh the pixels of the image. It is trained for a short time, on few images."""

    title = "L-CAM-Img"
    trains_on_images = True
    card = Card(
        sentence="Which parts of the image must be shown for the class to be predicted.",
        source="Gkartzonika, Gkalelis and Mezaris 2022; mean colour: Ntrougkas et al. 2024 (T-TAME)",
        needs="features; to train, gradients with respect to pixels",
        cost="1 forward pass, after training",
        proof="as L-CAM-Fm, and masked images computed by hand",
    )
    Settings: ClassVar = LCamImgSettings
    settings: LCamImgSettings

    def used(self, data: TrainingData) -> TrainingData:
        """At most as many images as the settings say, evenly spread over the data."""
        return data.some(self.settings.images)

    def masked(self, run: int, data: TrainingData) -> Masked:
        """Class scores of images over which a mask is laid."""
        classifier, pixels = self.classifier.run(run), data.images
        assert pixels is not None

        def scores(features: Tensor, masks: Tensor, rows: Tensor) -> Tensor:
            images = torch.from_numpy(pixels[rows.cpu().numpy()]).to(masks.device)
            together = max(1, batch_size_for(masks.device, images.shape[1:3]) // len(rows))
            logits = []
            for some in masks.split(together):
                logits.append(classifier(torch.cat([self.shown(images, of) for of in some]))[0])
            return torch.cat(logits).view(*masks.shape[:2], -1)

        return scores

    def shown(self, images: Tensor, masks: Tensor) -> Tensor:
        """Images `[B, H, W, 3]` in [0, 255] where the mask `[B, h, w]`, enlarged bilinearly, is 1; the background where it is 0."""
        share = interpolate(masks[:, None], images.shape[1:3], mode="bilinear", align_corners=False)[:, 0, ..., None]
        extractor: Any = self.classifier.extractor
        behind = extractor.mean.flatten() if self.settings.background == "mean" else 0
        return images * share + behind * (1 - share)
