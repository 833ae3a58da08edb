"""The first layers of a network on an image of which whole patches are hidden, pieced together from 16 pictures.

Early in a network, a place of the map sees few pixels: of at most one row of patches with an even number and one with an
odd number, and likewise of columns. So what it sees, whichever patches are hidden, it also sees in one of 16 pictures, in
which all patches with the same parities of row and column are hidden or shown together. The first layers compute these
16 once; for each pattern of hidden patches their maps are pieced together, place by place, and the other layers follow.

    pieces = patchwork(extractor, images.shape[1:3], grid)       # None if the network or the images do not allow it
    maps = pieces.first(pictures)                                # pictures [16, H, W, 3] of an image, as `pieces.shown` says
    features = pieces.rest(maps, patterns)                       # bool [B, n], true is shown -> [B, C, h, w]
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bla.networks.backbones import Extractor
from bla.networks.patches import Grid, cells_of_pixels, patch_of_pixel

PICTURES = 16
"""Picture k shows the patches of row r and column c if k has a 1 in the binary place 2 * (r mod 2) + c mod 2."""
FEWEST = 3
"""Layers that are worth it: the stem, its normalisation and activation, and one stage of blocks."""
MOST = 4_000_000
"""Pixels of all trial images at most, because they go through the first layers together: 25 of 400 x 400 pixels."""
ERROR = 1e-4
"""Relative error of the features of a trial image, from which on a network is not pieced together."""


@dataclass(frozen=True)
class Patchwork:
    """The layers of a network in two parts, for images of this `size`.

    `seen` `[4, Y, X]` is the patch of each parity that a place of the map between the parts sees; if it sees none, any.
    """

    extractor: Extractor
    early: nn.Sequential
    late: nn.Sequential
    seen: Tensor
    size: Sequence[int]
    grid: Grid

    @property
    def shown(self) -> Tensor:
        """Where the pictures show the image, bool `[16, H, W]`."""
        cells = cells_of_pixels(self.size, self.grid)
        parity = cells // self.grid[1] % 2 * 2 + cells % self.grid[1] % 2
        return (torch.arange(PICTURES)[:, None, None] >> parity) % 2 == 1

    def first(self, pictures: Tensor) -> Tensor:
        """The maps `[B, Y, X, C]` between the parts, of pictures `[B, H, W, 3]` in [0, 255]."""
        maps: Tensor = self.early(self.extractor.normalised(pictures))
        return maps.permute(0, 2, 3, 1)

    def rest(self, maps: Tensor, patterns: Tensor) -> Tensor:
        """The feature maps `[B, C, h, w]` under patterns bool `[B, n]`, from the maps `[16, Y, X, C]` of an image's pictures."""
        places = self.seen[0].numel()
        picture = (patterns[:, self.seen] << torch.arange(4)[:, None, None]).sum(dim=1)  # [B, Y, X]
        rows = picture * places + torch.arange(places).view_as(self.seen[0])
        features: Tensor = self.late(maps.flatten(0, 2)[rows].permute(0, 3, 1, 2))
        return features


@torch.no_grad()
def patchwork(extractor: nn.Module, size: Sequence[int], grid: Grid) -> Patchwork | None:
    """The network in two parts, cut as late as its first layers allow; None if they are too few.

    None too for large images, and unless it is one of timm's EfficientNets on a CPU. What a layer sees is found by trying:
    where its map is NaN if a row or column of patches is NaN.
    """
    layers = _layers(extractor)
    if not layers or sum(grid) * size[0] * size[1] > MOST:
        return None
    assert isinstance(extractor, Extractor)
    rows, columns = (patch_of_pixel(side, count) for side, count in zip(size, grid, strict=True))
    maps = torch.zeros(sum(grid), 3, *size, device=extractor.mean.device)
    for row in range(grid[0]):
        maps[row, :, rows == row] = torch.nan
    for column in range(grid[1]):
        maps[grid[0] + column, :, :, columns == column] = torch.nan
    maps = maps.to(memory_format=torch.channels_last)
    found = None
    for count, layer in enumerate(layers[:-1], start=1):
        maps = layer(maps)
        seen = maps.isnan().any(dim=1)
        of_rows, of_columns = _of_parities(seen[: grid[0]].any(dim=2)), _of_parities(seen[grid[0] :].any(dim=1))
        if of_rows is None or of_columns is None:
            break
        seen = of_rows[:, None, :, None] * grid[1] + of_columns[None, :, None, :]
        parts = nn.Sequential(*layers[:count]), nn.Sequential(*layers[count:])
        found = Patchwork(extractor, *parts, seen.flatten(0, 1), size, grid)
    return found if found and len(found.early) >= FEWEST and _agrees(found) else None


def _layers(extractor: nn.Module) -> list[nn.Module]:
    """The layers of an EfficientNet on a CPU, to be applied one after the other; none for other networks."""
    from timm.models.efficientnet import EfficientNet

    if not isinstance(extractor, Extractor) or extractor.mean.device.type != "cpu" or extractor.training:
        return []
    model: Any = extractor.model
    if not isinstance(model, EfficientNet):
        return []
    return [model.conv_stem, model.bn1, *model.blocks, model.conv_head, model.bn2]


def _of_parities(seen: Tensor) -> Tensor | None:
    """For even and odd numbers the one that a place sees, `[2, Y]`, from bool `[g, Y]`; None if a place sees two of a parity."""
    result = []
    for parity in (0, 1):
        some = seen[parity::2]
        if (some.sum(dim=0) > 1).any():
            return None
        number = 2 * some.byte().argmax(dim=0) + parity if len(some) else torch.zeros(seen.shape[1], dtype=torch.long)
        result.append(number)
    return torch.stack(result)


def _agrees(pieces: Patchwork) -> bool:
    """Whether the features of a trial image with some patches hidden are those of the whole network."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (1, *pieces.size, 3), generator=generator)
    pattern = torch.rand(1, pieces.grid[0] * pieces.grid[1], generator=generator) < 0.5
    wanted = pieces.extractor.feature_map(image * pattern[:, cells_of_pixels(pieces.size, pieces.grid), None])
    found = pieces.rest(pieces.first(image * pieces.shown[..., None]), pattern)
    return found.shape == wanted.shape and bool((found - wanted).norm() <= ERROR * wanted.norm())
