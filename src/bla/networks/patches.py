"""The grid of patches over an image: some are shown, the others are painted black."""

import torch
from torch import Tensor
from torch.nn.functional import one_hot


def patch_of_pixel(side: int, grid: int) -> Tensor:
    """Which of `grid` equal pieces each of `side` pixels belongs to, `[side]`."""
    return torch.arange(side) * grid // side


def occlude(images: Tensor, patterns: Tensor, grid: int) -> Tensor:
    """Paint the absent patches of uint8 images `[B, H, W, 3]` black; `patterns` bool `[B, grid * grid]`, true is shown."""
    rows, columns = (patch_of_pixel(side, grid).to(images.device) for side in images.shape[1:3])
    shown = patterns[:, rows[:, None] * grid + columns]  # [B, H, W]
    return images * shown[..., None]


def cell_means(values: Tensor, grid: int) -> Tensor:
    """Means `[B, grid, grid]` of values `[B, H, W]` over the patches; unchanged if they are a map of the grid already."""
    if values.shape[1:] == (grid, grid):
        return values
    assert min(values.shape[1:]) >= grid, f"a map of {tuple(values.shape[1:])} is coarser than {grid} cells a side"
    for axis in (1, 2):
        patch = patch_of_pixel(values.shape[axis], grid).to(values.device)
        share = one_hot(patch, grid).to(values.dtype)
        values = (values.movedim(axis, 2) @ (share / share.sum(dim=0))).movedim(2, axis)
    return values
