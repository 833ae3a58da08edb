"""A random generator per run, so that a run draws the same numbers in any group of runs."""

from collections.abc import Sequence

import torch
from torch import Tensor


def generators_of(seeds: Sequence[int], device: torch.device | str = "cpu") -> list[torch.Generator]:
    """A generator for each seed."""
    return [torch.Generator(device).manual_seed(seed) for seed in seeds]


def draw(shape: tuple[int, ...], images: int, generators: Sequence[torch.Generator]) -> Tensor:
    """Uniform numbers `[R, images, *shape]` on the generators' device; run r uses generator r."""
    return torch.stack([torch.rand(images, *shape, generator=g, device=g.device) for g in generators])
