"""What is explained: a frozen backbone, average pooling, and linear heads of one or more runs.

    classifier = Classifier(extractor, head)           # R heads on one backbone
    probabilities = classifier(images).softmax(dim=2)  # uint8 [B, H, W, 3] -> [R, B, K]

All runs share the backbone, so that one pass over masked images serves every head.
"""

import torch
from torch import Tensor, nn

from bla.method.modules import Head
from bla.networks.backbones import Extractor


class Classifier(nn.Module):
    """Backbone and R heads: BL, or any other column's heads on average-pooled features."""

    def __init__(self, extractor: Extractor, head: Head) -> None:
        super().__init__()
        self.extractor = extractor
        self.head_weight = nn.Parameter(head.weight, requires_grad=False)
        self.head_bias = nn.Parameter(head.bias, requires_grad=False)
        self.forwards = 0  # images that went through the backbone

    def head(self) -> Head:
        """Its heads as they are in files."""
        return Head(self.head_weight, self.head_bias)

    def run(self, number: int) -> "Classifier":
        """The classifier of one run, R = 1, on the same backbone."""
        only = slice(number, number + 1)
        alone = Classifier(self.extractor, Head(self.head_weight[only], self.head_bias[only]))
        alone.training = self.training  # not .train(), which would reach into the backbone
        return alone

    def features(self, images: Tensor) -> Tensor:
        """The feature map `[B, C, h, w]` of images `[B, H, W, 3]` in [0, 255]."""
        features = self.extractor.feature_map(images)
        self.forwards += len(images)
        return features

    def logits(self, features: Tensor) -> Tensor:
        """Class logits `[R, B, K]` of a feature map `[B, C, h, w]`, pooled with equal weights."""
        pooled = features.float().mean(dim=(2, 3))
        return torch.einsum("bc,rkc->rbk", pooled, self.head_weight) + self.head_bias[:, None]

    def forward(self, images: Tensor) -> Tensor:
        """Class logits `[R, B, K]` of uint8 images `[B, H, W, 3]`."""
        return self.logits(self.features(images))

    def feature_gradient(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The feature map `[B, C, h, w]`, and the gradient of each image's target logit, of the first run, with respect to it."""
        with torch.no_grad():
            features = self.features(images).float()
        with torch.enable_grad():
            leaf = features.detach().requires_grad_()
            wanted = self.logits(leaf)[0].gather(1, targets[:, None]).sum()
        (gradient,) = torch.autograd.grad(wanted, leaf)
        return features, gradient
