"""Replay of a training step on a GPU without Python: captured once as a CUDA graph.

    step = Replayed(step, device)
    step(stored, rows, labels)         # the same results; on a CPU it is the function itself

A training step is some sixty small kernels, which a GPU computes faster than Python can launch them.
"""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

WARM_UP = 3
"""Calls before the capture, in which libraries initialise (required by CUDA's documentation)."""


class Replayed:
    """A function of tensors that returns nothing, works in place, and does not wait for the GPU.

    The first argument is read in place; the others, which may be None, are copied to the graph's inputs. A call runs
    normally, without replay, if its first argument or a shape differs from the first call.
    """

    def __init__(self, work: Callable[..., None], device: torch.device) -> None:
        self.work, self.calls = work, 0
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.usual: tuple[object, ...] = ()
        self.graph: torch.cuda.CUDAGraph | None = None
        self.inputs: tuple[Tensor | None, ...] = ()

    def __call__(self, stored: Tensor, *given: Tensor | None) -> None:
        """Call the function, or queue its replay."""
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
        for target, t in zip(self.inputs, given, strict=True):
            if target is not None and t is not None:
                target.copy_(t)
        self.graph.replay()


@contextmanager
def _uncollected() -> Iterator[None]:
    """Pause garbage collection: on an H100, a capture failed while old graphs (hundreds) were collected."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
