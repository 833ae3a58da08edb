"""What every explanation method is: from images and classes to maps of what mattered. And the battery that each passes.

    method = explainer_class("grad_cam")(classifier.run(0))
    maps = method.explain(images, targets, seeds)        # [B, h, w], higher is more important
    check_explainer(method, images, targets)

The methods themselves are in `bla.explainers`.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from bla.networks.backbones import batch_size_for
from bla.networks.classifier import Classifier
from bla.networks.patches import cell_means


class Explainer(ABC):
    """A method that explains the decisions of a classifier of one run."""

    title: ClassVar[str]
    learned: ClassVar[bool] = False
    control: ClassVar[bool] = False
    """Whether it knows nothing of the classifier, so that others must do better."""
    class_specific: ClassVar[bool] = True
    slow: ClassVar[bool] = False
    """Whether a map takes hundreds of forward passes."""
    backwards: ClassVar[int] = 0
    """Backward passes per explanation; forward passes are counted by the classifier (`Classifier.forwards`)."""

    def __init__(self, classifier: Classifier) -> None:
        assert len(classifier.head_weight) == 1, "an explainer explains the classifier of one run (Classifier.run)"
        self.classifier = classifier

    @abstractmethod
    def explain(self, images: Tensor, targets: Tensor, seeds: Tensor) -> Tensor:
        """Maps `[B, h, w]`, float, higher is more important, at the method's own resolution.

        `images` are uint8 `[B, H, W, 3]`; `targets` int64 `[B]` are the classes explained, which methods that are not
        `class_specific` ignore. `seeds` int64 `[B]` belong to the images, so that a method that draws random numbers
        gives an image the same map in any batch. All tensors are on the classifier's device.
        """

    @torch.no_grad()
    def grid(self, images: Tensor) -> int:
        """Cells a side of the feature map of such images."""
        return self.classifier.extractor.feature_map(images[:1]).shape[3]


def cell_maps(explainer: Explainer, images: Tensor, targets: Tensor, seeds: Tensor, grid: int) -> Tensor:
    """Maps of any number of images as means over the cells, `[B, grid * grid]` in double precision, on the CPU."""
    size = batch_size_for(images.device, images.shape[1])
    parts = [
        cell_means(explainer.explain(*part).double(), grid).flatten(1).cpu()
        for part in zip(images.split(size), targets.split(size), seeds.split(size), strict=True)
    ]
    return torch.cat(parts)


def add_noise(images: Tensor, deviation: float, seeds: Tensor) -> Tensor:
    """The uint8 images with Gaussian noise of a standard deviation given for pixels in [0, 1], from the images' seeds."""
    noise = [torch.randn(images.shape[1:], generator=torch.Generator().manual_seed(seed)) for seed in seeds.tolist()]
    noisy = images.float() + 255 * deviation * torch.stack(noise).to(images.device)
    return noisy.round().clamp(0, 255).to(torch.uint8)
