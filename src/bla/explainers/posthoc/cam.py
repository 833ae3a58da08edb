"""CAM: how much does each cell of the feature map contribute to the class's logit?

Zhou et al. 2016, "Learning deep features for discriminative localization". After average pooling the logit of class c
is the mean over cells of w_c . f_i (plus the bias), so that w_c . f_i is what cell i contributes.
"""

import torch
from torch import Tensor

from bla.explainers.interface import Card, Explainer


class CAM(Explainer):
    """The contributions of the cells; they may be negative."""

    title = "CAM"
    card = Card(
        sentence="What each cell adds to the logit of the class.",
        source="Zhou et al. 2016",
        needs="features and a linear head on their average",
        cost="1 forward pass",
        proof="tests/explainers/test_posthoc.py: the head on each cell",
    )
    linear_head = True

    @torch.no_grad()
    def explain(self, images: Tensor, targets: Tensor, seeds: Tensor) -> Tensor:
        """Contributions `[B, h, w]` to the logit, times the number of cells."""
        features = self.classifier.finite_features(images)
        maps = cam(features.flatten(2).transpose(1, 2).float(), self.classifier.linear_head().weight, targets[None])[0]
        return maps.view(len(images), *features.shape[2:])


def cam(features: Tensor, head_weight: Tensor, targets: Tensor) -> Tensor:
    """Maps `[R, B, n]` of features `[B, n, C]` for heads `[R, K, C]` and target classes `[R, B]`."""
    runs, _, channels = head_weight.shape
    of_target = head_weight.gather(1, targets[..., None].expand(runs, -1, channels))  # [R, B, C]
    return (features @ of_target[..., None])[..., 0]  # "bnc,rbc->rbn"
