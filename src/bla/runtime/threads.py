"""Work in parallel, one item per thread: small operations gain little from several threads, and wait for busy cores."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

Item = TypeVar("Item")
Result = TypeVar("Result")


def side_by_side(work: Callable[[Item], Result], items: Iterable[Item], workers: int) -> Iterator[Result]:
    """Yield `work(item)` of each item in order; after an error no further item is started.

    With several workers torch uses one thread per operation until the iterator is exhausted. A single one is the thread
    that calls: cuDNN plans its convolutions anew, for seconds, in each new thread. Work is always done with gradients
    enabled, since a new thread inherits neither `no_grad` nor `inference_mode`.
    """
    if workers == 1:
        for item in items:
            with torch.inference_mode(False), torch.enable_grad():
                result = work(item)
            yield result
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(workers) as pool:
            yield from pool.map(work, items)
    finally:
        torch.set_num_threads(threads)


def in_parts(work: Callable[[Tensor], Tensor], batch: Tensor) -> Tensor:
    """`work(batch)` of a batch `[B, ...]`, on a CPU in as many parts as threads; with gradients in one part.

    Convolutions of a small batch on one thread are up to twice as fast as on two threads that wait for each other, and
    more if other programs run.
    """
    threads = min(torch.get_num_threads(), len(batch))
    if batch.device.type != "cpu" or threads < 2 or torch.is_grad_enabled():
        return work(batch)

    mode = torch.inference_mode if torch.is_inference_mode_enabled() else torch.no_grad

    def part(images: Tensor) -> Tensor:
        with mode():  # a new thread does not inherit it
            return work(images)

    return torch.cat(list(side_by_side(part, batch.chunk(threads), threads)))
