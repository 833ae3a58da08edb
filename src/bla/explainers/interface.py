"""What every explanation method is: from images and classes to maps of what mattered. And the battery that each passes.

    method = explainer_class("grad_cam")(classifier.run(0))
    maps = method.explain(images, targets, seeds)        # [B, h, w], higher is more important
    check_explainer(method, images, targets)

The methods themselves are in `bla.explainers`.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

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


def check_explainer(explainer: Explainer, images: Tensor, targets: Tensor, tolerance: float = 1e-4) -> None:
    """Raise AssertionError unless the method keeps the promises of `Explainer` on at least three images.

    A title; shape and finite values; the same maps one by one, in another order and asked again; the targets matter if, and only
    if, the method is class-specific; inputs, model (mode, gradients, hooks) and random numbers are left as they were.
    """
    assert len(images) >= 3, "the battery needs at least three images"
    assert isinstance(getattr(explainer, "title", None), str), "there is no title for tables and pictures"
    model, seeds = explainer.classifier, torch.arange(len(images)) + 11
    before = _state(model), images.clone(), targets.clone(), torch.get_rng_state()
    maps = explainer.explain(images, targets, seeds)
    after = _state(model), images, targets, torch.get_rng_state()
    for what, old, new in zip(
        ("the model", "the images", "the targets", "the random state"), before, after, strict=True
    ):
        same = torch.equal(old, new) if isinstance(old, Tensor) and isinstance(new, Tensor) else old == new
        assert same, f"{what} is not as it was before"
    assert not maps.requires_grad, "the maps carry a graph"
    assert maps.ndim == 3, f"maps have shape {list(maps.shape)}, not [B, h, w]"
    assert len(maps) == len(images), f"{len(maps)} maps for {len(images)} images"
    assert maps.is_floating_point(), f"maps are {maps.dtype}"
    assert maps.isfinite().all(), "maps are not finite"

    def close(others: Tensor, mine: Tensor, how: str) -> None:
        scale = mine.abs().amax(dim=(1, 2)).clamp(min=1e-12)
        error = ((others - mine).abs().amax(dim=(1, 2)) / scale).max().item()
        assert error <= tolerance, f"maps differ by {error:.2g} of their size {how}"

    alone = [explainer.explain(images[i : i + 1], targets[i : i + 1], seeds[i : i + 1]) for i in range(len(images))]
    close(torch.cat(alone), maps, "when images come one by one")
    order = torch.arange(len(images)).flip(0)
    close(explainer.explain(images[order], targets[order], seeds[order])[order], maps, "in another order")
    close(explainer.explain(images, targets, seeds), maps, "when asked again")
    classes = model.head_weight.shape[1]
    other = explainer.explain(images, (targets + 1) % classes, seeds)
    if explainer.class_specific:
        assert not torch.allclose(other, maps), "maps of another class are the same"
    else:
        close(other, maps, "for another class")


def _state(model: nn.Module) -> list[object]:
    modules: list[object] = [
        (name, m.training, len(m._forward_hooks), len(m._backward_hooks), len(m._forward_pre_hooks))
        for name, m in model.named_modules()
    ]
    tensors = [
        (name, value.requires_grad, value.grad is None, value.detach().cpu().numpy().tobytes())
        for name, value in [*model.named_parameters(), *model.named_buffers()]
    ]
    return [*modules, *tensors]
