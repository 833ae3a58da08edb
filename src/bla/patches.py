"""The grid of patches over an image: some are shown, the others are painted black."""

import torch
from torch import Tensor


def patch_of_pixel(side: int, grid: int) -> Tensor:
    """Which of `grid` equal pieces each of `side` pixels belongs to, `[side]`."""
    return torch.arange(side) * grid // side


def occlude(images: Tensor, patterns: Tensor, grid: int) -> Tensor:
    """Paint the absent patches of uint8 images `[B, H, W, 3]` black; `patterns` bool `[B, grid * grid]`, true is shown."""
    rows, columns = (patch_of_pixel(side, grid).to(images.device) for side in images.shape[1:3])
    shown = patterns[:, rows[:, None] * grid + columns]  # [B, H, W]
    return images * shown[..., None]
