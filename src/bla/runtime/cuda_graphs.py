"""Steps that a GPU repeats without Python: captured once as a CUDA graph, then replayed.

    step = Replayed(step, device)
    step(stored, rows, labels)         # the same results; on a CPU it is the function itself

A step of training is some sixty small kernels, which Python launches more slowly than a GPU computes them.
"""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

WARM_UP = 3
"""Calls before the capture, in which libraries set themselves up (CUDA's documentation asks for some)."""


class Replayed:
    """A function of tensors that returns nothing and changes what it changes in place, without waiting for the GPU.

    The first argument is read where it lies; the others, some of which may be None, are copied into the graph's own. Calls
    with another first argument or other shapes than the first call's run as they come.
    """

    def __init__(self, work: Callable[..., None], device: torch.device) -> None:
        self.work, self.calls = work, 0
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.usual: tuple[object, ...] = ()
        self.graph: torch.cuda.CUDAGraph | None = None
        self.inputs: tuple[Tensor | None, ...] = ()

    def __call__(self, stored: Tensor, *given: Tensor | None) -> None:
        """Do the work, now or when the GPU comes to it."""
        if self.stream is None:
            self.work(stored, *given)
            return
        shape = stored.data_ptr(), *(None if t is None else t.shape for t in given)
        self.usual = self.usual or shape
        if shape != self.usual or self.calls < WARM_UP:
            self.calls += 1
            self.stream.wait_stream(torch.cuda.current_stream(stored.device))
            with torch.cuda.stream(self.stream):
                self.work(stored, *given)
            torch.cuda.current_stream(stored.device).wait_stream(self.stream)
            return
        if self.graph is None:
            self.inputs = tuple(None if t is None else t.clone() for t in given)
            self.graph = torch.cuda.CUDAGraph()
            with _uncollected(), torch.cuda.graph(self.graph):  # records, computes nothing
                self.work(stored, *self.inputs)
        for own, t in zip(self.inputs, given, strict=True):
            if own is not None and t is not None:
                own.copy_(t)
        self.graph.replay()


@contextmanager
def _uncollected() -> Iterator[None]:
    """Collect no garbage in the block. After hundreds of graphs an H100 refused a capture in which earlier ones were collected."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
