"""Maps of a trained explanation module: BLA, BLA-T, BLA-PH and L2X-F.

Baumhauer et al. 2021, section 3: the soft explanation q = softmax(theta l) before any threshold, without L2X-F's noise.
"""

from typing import ClassVar

import torch
from torch import Tensor

from bla.base.specs import Explaining
from bla.explainers.interface import Explainer
from bla.method.equations import logits_of, soft_weights
from bla.method.modules import Module
from bla.networks.classifier import Classifier


class Attention(Explainer):
    """The module `[1, C]` of one run; it reads the backbone's features alone, and no head."""

    title = "explanation module"
    learned: ClassVar[bool] = True
    class_specific: ClassVar[bool] = False

    def __init__(self, classifier: Classifier, variant: Explaining, module: Module) -> None:
        super().__init__(classifier)
        self.variant, self.module = variant, module

    @torch.no_grad()
    def explain(self, images: Tensor, targets: Tensor, seeds: Tensor) -> Tensor:
        """Soft weights `[B, h, w]`, which sum to 1."""
        features = self.classifier.features(images)
        logits = logits_of(self.variant, self.module(features.flatten(2).transpose(1, 2).float()))[0]
        return soft_weights(logits.double(), self.variant.temperature).view(len(images), *features.shape[2:])
