"""The grid of patches over an image, which are shown or painted black."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import one_hot

Grid = tuple[int, int]
"""Rows and columns of a feature map; n = rows * columns cells."""


def patch_of_pixel(side: int, grid: int) -> Tensor:
    """For each of `side` pixels the number of its piece, of `grid` equal pieces: `[side]`."""
    return torch.arange(side) * grid // side


def batch_size_for(device: torch.device, size: Sequence[int]) -> int:
    """How many images of this height and width, in pixels, to extract at once.

    On a CPU 16 images of 224 x 224 pixels per thread (`bla.runtime.threads.in_parts`): with fewer, one thread computes 1x1
    convolutions in a slower way.
    """
    return 512 if device.type == "cuda" else max(1, 16 * torch.get_num_threads() * 224**2 // (size[0] * size[1]))


def cells_of_pixels(size: Sequence[int], grid: Grid) -> Tensor:
    """The cell number of each pixel of an image, `[H, W]`."""
    rows, columns = (patch_of_pixel(side, cells) for side, cells in zip(size, grid, strict=True))
    return rows[:, None] * grid[1] + columns


def occlude(images: Tensor, patterns: Tensor, grid: Grid) -> Tensor:
    """Paint the absent patches of uint8 images `[B, H, W, 3]` black; `patterns` bool `[B, n]`, true is shown."""
    shown = patterns[:, cells_of_pixels(images.shape[1:3], grid).to(images.device)]  # [B, H, W]
    return images * shown[..., None]


def cell_means(values: Tensor, grid: Grid) -> Tensor:
    """Means `[B, h, w]` of values `[B, H, W]` over the patches; values of the grid's size are returned unchanged.

    The mean of equal values is exactly this value, also where patches differ in size.
    """
    if values.shape[1:] == tuple(grid):
        return values
    sides = values.shape[1:]
    assert all(side >= cells for side, cells in zip(sides, grid, strict=True)), (
        f"a map of {tuple(sides)} is coarser than {grid} cells"
    )
    for axis, cells in zip((1, 2), grid, strict=True):
        patch = patch_of_pixel(values.shape[axis], cells).to(values.device)
        share = one_hot(patch, cells).to(values.dtype)
        first = values.index_select(axis, share.argmax(dim=0))  # the first row or column of each patch
        differences = values - first.index_select(axis, patch)
        values = first + (differences.movedim(axis, 2) @ (share / share.sum(dim=0))).movedim(2, axis)
    return values
