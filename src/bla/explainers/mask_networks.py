"""Networks that draw a mask for each class: from pixels to one logit a class and pixel.

    network = build_network("small", classes=16, seed=0)
    logits = network(pixels)  # [B, 3, H, W] -> [B, K, H, W]

`small` is an encoder and a decoder with one skip connection; `deeplab_v3` is torchvision's DeepLabV3 with a ResNet-50
(Chen et al. 2017). Both make logits at an eighth of the size and enlarge them bilinearly; both start from random weights.
"""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

NetworkName = Literal["small", "deeplab_v3"]
WIDTHS = 24, 48, 64
"""Channels of the small network at a quarter, an eighth and a sixteenth of the size."""


def _block(channels_in: int, channels: int, kernel: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    padding = dilation * (kernel // 2) if kernel % 2 else 0
    convolution = nn.Conv2d(channels_in, channels, kernel, stride, padding, dilation, bias=False)
    return nn.Sequential(convolution, nn.GroupNorm(8, channels), nn.ReLU())  # no statistics of the batch


class SmallNetwork(nn.Module):
    """An encoder and a decoder with 0.1 million weights; sides of images have at least 16 pixels."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        quarter, eighth, sixteenth = WIDTHS
        self.stem = _block(3, quarter, 4, 4)
        self.first = _block(quarter, eighth, 3, 2)
        self.second = nn.Sequential(_block(eighth, sixteenth, 3, 2), _block(sixteenth, sixteenth, 3, dilation=2))
        self.whole = nn.Linear(sixteenth, sixteenth)
        self.skip = nn.Conv2d(eighth, sixteenth, 1)
        self.decoder = _block(sixteenth, sixteenth, 3)
        self.last = nn.Conv2d(sixteenth, classes, 1)

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits `[B, K, H, W]` of pixels `[B, 3, H, W]`."""
        fine = self.first(self.stem(pixels))
        coarse = self.second(fine)
        coarse = coarse + self.whole(coarse.mean(dim=(2, 3)))[..., None, None]
        enlarged = interpolate(coarse, fine.shape[2:], mode="bilinear", align_corners=False)
        logits = self.last(self.decoder(enlarged + self.skip(fine)))
        return interpolate(logits, pixels.shape[2:], mode="bilinear", align_corners=False)


class DeepLab(nn.Module):
    """torchvision's DeepLabV3 with a ResNet-50, without the auxiliary output: 40 million weights."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        from torchvision.models.segmentation import deeplabv3_resnet50  # takes a second to import

        self.network = deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=classes, aux_loss=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits `[B, K, H, W]` of pixels `[B, 3, H, W]`."""
        logits: Tensor = self.network(pixels)["out"]
        return logits


NETWORKS: dict[NetworkName, tuple[type[nn.Module], str]] = {
    "small": (SmallNetwork, "last.bias"),
    "deeplab_v3": (DeepLab, "network.classifier.4.bias"),
}
"""Each network, and the tensor that has a number for each class."""


def build_network(name: NetworkName, classes: int, seed: int) -> nn.Module:
    """An untrained network, in training mode; the global random state does not change."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return NETWORKS[name][0](classes)


def empty_network(name: NetworkName, state: Mapping[str, Tensor]) -> nn.Module:
    """The network without weights, in evaluation mode, for `torch.func.functional_call` with the tensors of a state."""
    kind, of_classes = NETWORKS[name]
    with torch.device("meta"):
        return kind(len(state[of_classes])).eval()
