"""Shuffled passes over features that need not fit into memory.

    for pool in pools(features, labels, draw, generators, limit, batch_size, device):
        ...                        # features and labels of some images, and the order in which each run sees them

Without a limit a pass is one permutation of all images, drawn by each run for itself. With a limit the images are read in
blocks of neighbouring rows, about a megabyte each, which a disk reads nearly as fast as a whole file. The blocks come in
random order; so many as half the limit allows form a pool, within which the images are shuffled, and while one pool is used
the next is read. Each run reads for itself:
runs that shared their pools would have errors in common, which the spread over runs does not show.

How far is that from a permutation of all images? Every image still comes once in a pass, and its place is uniform. But
images of one block come in the same pool. A pool is therefore a cluster sample: whatever is averaged over it, such as the
share of a class, varies 1 + (b - 1) rho times as much as in a simple sample (Kish 1965), where b is the number of images in
a block and rho the correlation within blocks. Stored in random order, as the stage `prepare` stores them, images have
rho = 0, and a pool is as good as a simple sample. Sorted by class they have rho = 1, and training suffers: with b = 8, as at
49 cells of 1,280 channels, a pool of 8,192 images varies as 1,024 do. The tests measure both.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import torch
from torch import Tensor

BLOCK_BYTES = 2**20
"""Neighbouring images that are read together fill about so much."""
COPIED_AT_ONCE = 128
"""Images on their way from the memory map to the device."""


class Pool(NamedTuple):
    """Images in memory: `features` `[D, M, n, C]` and `labels` `[M]`; run r reads draw `draw[r]` in the order `orders[r]`.

    `draw` `[R]` and `orders` `[R, M]` count within the pool.
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

    `features` `[D, N, n, C]` and `labels` `[N]` lie on `device`, or with a limit anywhere, such as in a memory map; run r reads
    draw `draw[r]`. All pools but the last hold a multiple of `batch_size` images, at least one batch. A pool is gone when the
    next is asked for.
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
        chosen = parts[number].sort().values.to(features.device)  # a disk likes to read forwards
        place = memory[number % 2][: len(chosen)]
        for rows, target in zip(chosen.split(COPIED_AT_ONCE), place.split(COPIED_AT_ONCE), strict=True):
            target.copy_(features[int(draw)].index_select(0, rows))
        return place[None], labels[chosen].to(device)

    with ThreadPoolExecutor(1) as reader:
        waiting = reader.submit(read, 0)
        for number in range(len(parts)):
            found, own = waiting.result()
            if number + 1 < len(parts):
                waiting = reader.submit(read, number + 1)
            yield Pool(found, own, torch.zeros_like(draw).to(device), _orders(len(own), generators, device))


def block_rows(features: Tensor) -> int:
    """How many neighbouring images `[..., N, n, C]` are read together."""
    return max(1, BLOCK_BYTES // (features.shape[-2] * features.shape[-1] * features.element_size()))


def block_order(images: int, block: int, generator: torch.Generator) -> Tensor:
    """The numbers of all images `[images]`, blocks of neighbours in random order, beginning anywhere within a block."""
    first = torch.randperm(-(-images // block), generator=generator) * block
    rows = (first[:, None] + torch.arange(block)).flatten()
    # The beginning makes every place equally likely for every image, where a pool is no whole number of blocks.
    return rows[rows < images].roll(int(torch.randint(images, (), generator=generator)))


def _orders(images: int, generators: Sequence[torch.Generator], device: torch.device) -> Tensor:
    return torch.stack([torch.randperm(images, generator=g) for g in generators]).to(device)
