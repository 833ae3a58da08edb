"""A frozen backbone made faster: batch normalisation in the convolutions before it, and few images at a time on a CPU."""

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from bla.networks.backbones import Extractor, ResidualDrop

SLICE = 700_000
"""Bytes of input that a block takes at once (`InSlices`)."""
WHOLE = 8
"""A block takes the whole batch if so many images are within `SLICE`."""


class InSlices(nn.Module):
    """A block that takes few images at a time on a CPU, so that what is computed between its layers stays in the cache."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, maps: Tensor) -> Tensor:
        """The block's maps of maps `[B, ...]`, the same but for rounding."""
        count = max(1, SLICE // max(1, maps[:1].numel() * maps.element_size()))
        if count >= WHOLE or maps.device.type != "cpu":
            result: Tensor = self.block(maps)
            return result
        return torch.cat([self.block(part) for part in maps.split(count)])


def fold_batch_norm(extractor: Extractor) -> Extractor:
    """The same extractor with batch normalisation folded into the convolutions before it, for faster inference.

    timm's blocks with a pointwise and a depthwise convolution, as in EfficientNets, take few images at a time.
    Checked on noise of 64 x 64 pixels: if the features differ by more than 1e-4, as in a model that applies its layers in
    another order than it lists them, or if the model fails, as with a fixed image size, the extractor is returned unchanged.
    """
    folded = copy.deepcopy(extractor)
    for part in folded.network.parts:
        _fold(part)
    side = 64
    noise = torch.randint(0, 256, (2, side, side, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        try:
            before, after = extractor(noise), folded(noise)
        except Exception:  # a fixed image size, or a user's code that looks into its layers, may raise anything
            return extractor
    return folded if (after - before).norm() <= 1e-4 * before.norm() else extractor


def _fold(parent: nn.Module) -> None:
    convolution: tuple[str, nn.Conv2d] | None = None
    for name, child in list(parent.named_children()):
        if isinstance(child, nn.BatchNorm2d) and convolution and child.num_features == convolution[1].out_channels:
            setattr(parent, convolution[0], fuse_conv_bn_eval(convolution[1], child))
            rest = [getattr(child, part) for part in ("drop", "act") if hasattr(child, part)]  # timm's BatchNormAct2d
            setattr(parent, name, nn.Sequential(*rest))
            convolution = None
        elif isinstance(child, nn.Conv2d):
            convolution = name, child
        else:
            _fold(child)
            # torch.fx turns blocks into containers, of which it uses the layers. A drop's factors are of the whole batch.
            is_block = type(child) is not nn.Module and hasattr(child, "conv_pw") and hasattr(child, "conv_dw")
            if is_block and not any(isinstance(part, ResidualDrop) for part in child.modules()):
                setattr(parent, name, InSlices(child))
