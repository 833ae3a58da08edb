"""Shuffled passes over features that need not fit into memory.

    for pool in pools(features, labels, draw, generators, limit, batch_size, device):
        ...                        # features and labels of some images, and the order in which each run sees them

Without a limit a pass is one permutation of all images, drawn by each run for itself. With a limit the images are read in
blocks of neighbouring rows, about a megabyte each, which a disk reads nearly as fast as a whole file. The blocks come in
random order; so many as the limit allows form a pool, within which the images are shuffled. Each run reads for itself:
runs that shared their pools would have errors in common, which the spread over runs does not show.

How far is that from a permutation of all images? Every image still comes once in a pass, and its place is uniform. But
images of one block come in the same pool. A pool is therefore a cluster sample: whatever is averaged over it, such as the
share of a class, varies 1 + (b - 1) rho times as much as in a simple sample (Kish 1965), where b is the number of images in
a block and rho the correlation within blocks. Stored in random order, as the stage `prepare` stores them, images have
rho = 0, and a pool is as good as a simple sample. Sorted by class they have rho = 1, and training suffers: with b = 8, as at
49 cells of 1,280 channels, a pool of 16,384 images varies as 2,048 do. The tests measure both.
"""

from collections.abc import Iterator, Sequence
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
    """One pass over the images: all at once for R runs, or for one run at most `limit` images at a time.

    `features` `[D, N, n, C]` and `labels` `[N]` lie on `device`, or with a limit anywhere, such as in a memory map; run r reads
    draw `draw[r]`. All pools but the last hold a multiple of `batch_size` images; each takes the place of the one before.
    """
    images = features.shape[1]
    if limit is None:
        yield Pool(features, labels, draw.to(device), _orders(images, generators, device))
        return
    (generator,) = generators
    size = max(1, limit // batch_size) * batch_size
    memory = torch.empty(min(size, images), *features.shape[2:], dtype=features.dtype, device=device)
    for chosen in block_order(images, block_rows(features), generator).split(size):
        chosen = chosen.sort().values.to(features.device)  # a disk likes to read forwards
        for start in range(0, len(chosen), COPIED_AT_ONCE):
            part = chosen[start : start + COPIED_AT_ONCE]
            memory[start : start + len(part)] = features[int(draw)].index_select(0, part)
        order = _orders(len(chosen), generators, device)
        yield Pool(memory[None, : len(chosen)], labels[chosen].to(device), torch.zeros_like(draw).to(device), order)


def block_rows(features: Tensor) -> int:
    """How many neighbouring images `[..., N, n, C]` are read together."""
    return max(1, BLOCK_BYTES // (features.shape[-2] * features.shape[-1] * features.element_size()))


def block_order(images: int, block: int, generator: torch.Generator) -> Tensor:
    """The numbers of all images `[images]`, blocks of neighbours in random order."""
    first = torch.randperm(-(-images // block), generator=generator) * block
    rows = (first[:, None] + torch.arange(block)).flatten()
    return rows[rows < images]


def _orders(images: int, generators: Sequence[torch.Generator], device: torch.device) -> Tensor:
    return torch.stack([torch.randperm(images, generator=g) for g in generators]).to(device)
