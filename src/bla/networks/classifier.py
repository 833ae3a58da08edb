"""The classifier that is explained: a backbone's feature map, and a tail that turns it into class scores.

    classifier = Classifier(extractor, Head(weight, bias))             # average pooling and R linear heads
    classifier = Classifier(extractor, OwnTail(extractor.network))     # the network's own layers after the map
    scores = classifier(images)                                        # uint8 [B, H, W, 3] -> [R, B, K]
    probabilities = classifier.probabilities(scores)                   # softmax, or sigmoid for each class

All runs share the backbone, so that one forward pass serves all heads. Methods with `linear_head = True` use
`linear_head()`.
"""

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from bla.base.errors import BlaError
from bla.method.modules import Head
from bla.method.scores import Scores, probabilities
from bla.runtime.threads import in_parts, side_by_side

if TYPE_CHECKING:
    from bla.networks.sources import Network


GRADIENTS_AT_ONCE = {True: 2, False: 64}
"""Images per backward pass and thread, on a CPU (True) and on a GPU; few, because activations must fit its cache or memory."""


def require_finite(finite: Tensor) -> None:
    """BlaError unless `finite`, a bool on any device, is true of class scores, or of gradients of them."""
    if not finite:
        raise BlaError("the classifier's class scores or their gradients are not finite; check its weights")


def padded_size(images: int, device: torch.device) -> int:
    """The batch for so many images: on a GPU a power of two, because cuDNN plans for seconds at each size that is new."""
    return 2 ** (images - 1).bit_length() if images and device.type == "cuda" else images


def feature_map(extractor: nn.Module, images: Tensor) -> Tensor:
    """The extractor's map `[B, C, h, w]` of images `[B, H, W, 3]`, from a batch of `padded_size`."""
    padding = images.new_zeros(padded_size(len(images), images.device) - len(images), *images.shape[1:])
    features: Tensor = extractor.feature_map(torch.cat([images, padding]) if len(padding) else images)  # type: ignore[operator]
    return features[: len(images)]


class PooledHeads(nn.Module):
    """R linear heads on the average of the cells, such as BL's."""

    def __init__(self, head: Head) -> None:
        super().__init__()
        self.weight = nn.Parameter(head.weight, requires_grad=False)
        self.bias = nn.Parameter(head.bias, requires_grad=False)

    def forward(self, features: Tensor) -> Tensor:
        """Class scores `[R, B, K]` of a feature map `[B, C, h, w]`."""
        pooled = features.float().mean(dim=(2, 3))
        return torch.einsum("bc,rkc->rbk", pooled, self.weight) + self.bias[:, None]


class OwnTail(nn.Module):
    """The layers of a network after its feature map; one run."""

    def __init__(self, network: "Network") -> None:
        super().__init__()
        self.network = network

    def forward(self, features: Tensor) -> Tensor:
        """Class scores `[1, B, K]` of a feature map `[B, C, h, w]`."""
        return self.network.tail(features.float())[None]


class Classifier(nn.Module):
    """A backbone with the tails of R runs; probabilities are a softmax, or a sigmoid for each class."""

    def __init__(self, extractor: nn.Module, tail: nn.Module | Head, scores: Scores = "softmax") -> None:
        super().__init__()
        self.extractor = extractor
        self.tail = PooledHeads(tail) if isinstance(tail, Head) else tail
        self.scores = scores
        self.forwards = 0  # number of images that went through the backbone
        self.backwards = 0  # number of images for which a gradient of a class score was computed

    @property
    def runs(self) -> int:
        """How many runs it has."""
        return len(self.tail.weight) if isinstance(self.tail, PooledHeads) else 1

    @property
    def is_pooled(self) -> bool:
        """Whether its tail depends only on the mean over the cells."""
        return isinstance(self.tail, PooledHeads)

    @property
    def device(self) -> torch.device:
        """Where its weights lie."""
        return next(self.parameters()).device

    def linear_head(self) -> Head:
        """The heads `[R, K, C]` on average-pooled features; BlaError if the tail is anything else."""
        if isinstance(self.tail, PooledHeads):
            return Head(self.tail.weight, self.tail.bias)
        layers = [layer for layer in self.tail.modules() if isinstance(layer, nn.Linear)]
        if layers and self._is_pooling_and(layers[-1]):
            weight, bias = layers[-1].weight, layers[-1].bias
            return Head(weight[None], (weight.new_zeros(len(weight)) if bias is None else bias)[None])
        raise BlaError("this classifier has no linear head on average-pooled features")

    @torch.no_grad()
    def _is_pooling_and(self, layer: nn.Linear) -> bool:
        """Whether the tail equals average pooling and this layer, tried on a random map."""
        # Large values of both signs reveal a ReLU, also a clipped one, before the pooling.
        features = 4 * torch.randn(2, layer.in_features, 3, 3, generator=torch.Generator().manual_seed(0))
        features = features.to(self.device)
        expected = layer(features.mean(dim=(2, 3)))
        try:
            result = self.tail(features)[0]
        except RuntimeError:  # the tail needs maps of another size
            return False
        return result.shape == expected.shape and torch.allclose(result, expected, rtol=1e-4, atol=1e-5)

    def run(self, number: int) -> "Classifier":
        """The classifier of one run, R = 1, on the same backbone."""
        tail: nn.Module | Head = self.tail
        if isinstance(tail, PooledHeads):
            tail = Head(tail.weight[number : number + 1], tail.bias[number : number + 1])
        alone = Classifier(self.extractor, tail, self.scores)
        alone.training = alone.tail.training = self.training  # not .train(), which would change the backbone's mode too
        return alone

    def with_extractor(self, extractor: nn.Module) -> "Classifier":
        """The same classifier on another copy of its backbone."""
        tail = OwnTail(extractor.network) if isinstance(self.tail, OwnTail) else copy.deepcopy(self.tail)  # type: ignore[arg-type]
        return Classifier(extractor, tail, self.scores)

    def with_scaled_features(self, scale: float) -> "Classifier":
        """The same tail on a feature map multiplied by `scale`."""
        scaled = Classifier(ScaledFeatures(self.extractor, scale), self.tail, self.scores)
        scaled.training = scaled.extractor.training = self.training
        return scaled

    def features(self, images: Tensor) -> Tensor:
        """The feature map `[B, C, h, w]` of images `[B, H, W, 3]` in [0, 255]."""
        # Batches of a training, whose masks carry gradients, have few sizes.
        work = self.extractor.feature_map if images.requires_grad else self._feature_map
        return self.features_by(work, images)  # type: ignore[arg-type]

    def features_by(self, work: Callable[[Tensor], Tensor], items: Tensor) -> Tensor:
        """The feature maps `[B, C, h, w]` that `work` computes from items `[B, ...]`; each is a forward pass."""
        features = in_parts(work, items)
        self.forwards += len(items)
        if features.requires_grad:
            features.register_hook(self._count_backward)
        return features

    def finite_features(self, images: Tensor) -> Tensor:
        """`features`, for methods that ask for no class score; BlaError if one is not finite."""
        features = self.features(images)
        if not features.isfinite().all():
            raise BlaError("the classifier's features are not finite; check its weights")
        return features

    def _feature_map(self, images: Tensor) -> Tensor:
        return feature_map(self.extractor, images)

    def _count_backward(self, gradient: Tensor) -> None:
        self.backwards += len(gradient)

    def logits(self, features: Tensor) -> Tensor:
        """Class scores `[R, B, K]` of a feature map `[B, C, h, w]`."""
        scores: Tensor = self.tail(features)
        return scores

    def forward(self, images: Tensor) -> Tensor:
        """Class scores `[R, B, K]` of uint8 images `[B, H, W, 3]`."""
        return self.logits(self.features(images))

    def probabilities(self, logits: Tensor) -> Tensor:
        """Probabilities `[..., K]` of class scores: they sum to 1 (softmax), or each class has its own (sigmoid)."""
        return probabilities(logits, self.scores)

    def feature_gradient(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The feature map `[B, C, h, w]`, and the gradient of the first run's target logits with respect to it.

        BlaError if a class score or a gradient is not finite.
        """
        with torch.no_grad():
            features = self.features(images).float()
        with torch.enable_grad():
            leaf = features.detach().requires_grad_()
            logits = self.logits(leaf)[0]
            target = logits.gather(1, targets[:, None]).sum()
        (gradient,) = torch.autograd.grad(target, leaf)
        require_finite(logits.isfinite().all() & gradient.isfinite().all())
        self.backwards += len(images)
        return features, gradient

    def pixel_gradient(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The first run's probabilities `[B]` of the targets for images `[B, H, W, 3]` in [0, 255], and their gradient.

        BlaError if a class score is not finite.
        """

        def part(some: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
            with torch.enable_grad():
                leaf = some[0].detach().requires_grad_()
                logits = self.logits(self._feature_map(leaf))[0]
                scores = self.probabilities(logits).gather(1, some[1][:, None])[:, 0]
            (gradient,) = torch.autograd.grad(scores.sum(), leaf)
            return scores.detach(), gradient, logits.isfinite().all()

        on_cpu = self.device.type == "cpu"
        size = GRADIENTS_AT_ONCE[on_cpu]
        parts = zip(images.split(size), targets.split(size), strict=True)
        scores, gradients, finite = zip(
            *side_by_side(part, parts, torch.get_num_threads() if on_cpu else 1), strict=True
        )
        self.forwards += len(images)
        self.backwards += len(images)
        require_finite(torch.stack(finite).all())
        return torch.cat(scores), torch.cat(gradients)


class ScaledFeatures(nn.Module):
    """A backbone whose feature map is multiplied by a number."""

    def __init__(self, extractor: nn.Module, scale: float) -> None:
        super().__init__()
        self.extractor, self.scale, self.mean = extractor, scale, extractor.mean

    def feature_map(self, images: Tensor) -> Tensor:
        """The map `[B, C, h, w]` times `scale`."""
        features: Tensor = self.extractor.feature_map(images)  # type: ignore[operator]
        return features * self.scale


class NoBackbone(nn.Module):
    """Stands for the backbone when training on cached features, which needs none."""

    def feature_map(self, images: Tensor) -> Tensor:
        """Raises: there is no network for images."""
        raise AssertionError("this classifier has no backbone: it belongs to cached features")
