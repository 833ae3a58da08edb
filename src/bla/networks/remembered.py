"""A backbone that computes the feature map of an image once, for methods that explain the same images one after the other."""

import hashlib
from typing import Any

import torch
from torch import Tensor, nn

from bla.networks.classifier import Classifier, feature_map

MOST = 1024
"""Maps that are kept, up to a batch more, so that a method which changes images cannot fill the memory; one of 7x7 cells and 1,280 channels has 250 kB."""


def with_remembered_features(classifier: Classifier) -> Classifier:
    """The same classifier on a backbone that remembers its maps; it must be frozen and in evaluation mode.

    Its `forwards` counts the images that are asked for, not those that go through the backbone.
    """
    return Classifier(RememberedFeatures(classifier.extractor), classifier.tail, classifier.scores).eval()


class RememberedFeatures(nn.Module):
    """A backbone that returns maps it has computed before; with gradients it computes them anew.

    Two threads may use it: each adds whole entries to the dictionary, and at worst both compute the same map.
    """

    def __init__(self, extractor: nn.Module) -> None:
        super().__init__()
        self.extractor = extractor
        self.maps: dict[bytes, Tensor] = {}  # [1, C, h, w] by the hash of an image

    def __getattr__(self, name: str) -> Any:
        """What this module has not, the backbone has, such as `mean` and `divisor`."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("extractor"), name)

    def feature_map(self, images: Tensor) -> Tensor:
        """The map `[B, C, h, w]` of images `[B, H, W, 3]`."""
        if (
            len(images) == 0
            or images.requires_grad
            or (torch.is_grad_enabled() and any(p.requires_grad for p in self.parameters()))
        ):
            return self.extractor.feature_map(images)  # type: ignore[no-any-return,operator]
        keys = [_key(image) for image in images.cpu()]
        maps = {key: self.maps[key] for key in keys if key in self.maps}
        rows = {key: row for row, key in enumerate(keys) if key not in maps}
        if rows:
            with torch.no_grad():
                computed = feature_map(self.extractor, images[list(rows.values())])
            maps |= dict(zip(rows, computed.split(1), strict=True))
            if len(self.maps) < MOST:
                self.maps.update((key, maps[key]) for key in rows)
        return torch.cat([maps[key] for key in keys])


def _key(image: Tensor) -> bytes:
    """A hash of an image's type, shape and values."""
    kind = f"{image.dtype}, {list(image.shape)}".encode()
    return hashlib.blake2b(kind + image.numpy().tobytes()).digest()
