"""Shuffled passes over features that need not fit into memory.

    for pool in pools(features, labels, draw, generators, limit, batch_size, device):
        ...                        # features and labels of some images, and the order in which each run sees them

Without a limit, a pass is one permutation of all images, and each run draws its own. With a limit, the images are read
in blocks of neighbouring rows, about a megabyte each, which a disk reads nearly as fast as a whole file. The blocks
come in random order. Pools of half the limit are filled with blocks and shuffled; while one pool is used, the next is
read. Each run has its own pools: the sampling error of shared pools would not show in the spread over runs.

How far is this from a permutation of all images? Every image still occurs once in a pass, at a uniformly random
position. But images of one block are in the same pool, so a pool is a cluster sample: the variance of its averages,
such as the share of a class, is 1 + (b - 1) rho times that of a simple random sample (Kish 1965), where b is the number
of images in a block and rho the correlation within blocks. Stored in random order, as the stage `prepare` stores them,
images have rho = 0, and a pool is as good as a simple random sample. Sorted by class they have rho = 1, and training
suffers: with b = 8 (49 cells of 1,280 channels), a pool of 8,192 images is worth 1,024. The tests measure both.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import torch
from torch import Tensor

BLOCK_BYTES = 2**20
"""Approximate size of a block of neighbouring images."""
COPIED_AT_ONCE = 128
"""Images copied at a time from the memory map to the device."""


class Pool(NamedTuple):
    """Images in memory: `features` `[D, M, n, C]` and `labels` `[M]`; run r reads draw `draw[r]` in the order `orders[r]`.

    `draw` `[R]` and `orders` `[R, M]` are indices within the pool.
    """

    features: Tensor
    labels: Tensor
    draw: Tensor
    orders: Tensor


def pools(
    features: Tensor,
    labels: Tensor,
    draw: Tensor,
    generators: Sequence[torch.Generator],
    limit: int | None,
    batch_size: int,
    device: torch.device,
) -> Iterator[Pool]:
    """One pass over the images: all at once for R runs, or for one run with at most `limit` images in memory.

    `features` `[D, N, n, C]` and `labels` `[N]` are on `device`; with a limit they may be memory maps. Run r reads draw
    `draw[r]`. All pools but the last hold a multiple of `batch_size` images, at least one batch. A pool is invalid once
    the next one is requested.
    """
    images = features.shape[1]
    if limit is None:
        yield Pool(features, labels, draw.to(device), _orders(images, generators, device))
        return
    (generator,) = generators
    size = max(1, limit // 2 // batch_size) * batch_size
    parts = block_order(images, block_rows(features), generator).split(size)
    memory = [
        torch.empty(min(size, images), *features.shape[2:], dtype=features.dtype, device=device) for _ in parts[:2]
    ]

    def read(number: int) -> tuple[Tensor, Tensor]:
        chosen = parts[number].sort().values.to(features.device)  # disks are faster in ascending order
        place = memory[number % 2][: len(chosen)]
        for rows, target in zip(chosen.split(COPIED_AT_ONCE), place.split(COPIED_AT_ONCE), strict=True):
            target.copy_(features[int(draw)].index_select(0, rows))
        return place[None], labels[chosen].to(device)

    with ThreadPoolExecutor(1) as reader:
        waiting = reader.submit(read, 0)
        for number in range(len(parts)):
            features_read, labels_read = waiting.result()
            if number + 1 < len(parts):
                waiting = reader.submit(read, number + 1)
            yield Pool(
                features_read,
                labels_read,
                torch.zeros_like(draw).to(device),
                _orders(len(labels_read), generators, device),
            )


def block_rows(features: Tensor) -> int:
    """The number of neighbouring images `[..., N, n, C]` in a block."""
    return max(1, BLOCK_BYTES // (features.shape[-2] * features.shape[-1] * features.element_size()))


def block_order(images: int, block: int, generator: torch.Generator) -> Tensor:
    """The numbers of all images `[images]` in random blocks of neighbours, starting at a random offset in a block."""
    first = torch.randperm(-(-images // block), generator=generator) * block
    rows = (first[:, None] + torch.arange(block)).flatten()
    # The random offset makes every position equally likely, even if pools are not whole numbers of blocks.
    return rows[rows < images].roll(int(torch.randint(images, (), generator=generator)))


def _orders(images: int, generators: Sequence[torch.Generator], device: torch.device) -> Tensor:
    return torch.stack([torch.randperm(images, generator=g) for g in generators]).to(device)
