"""Work on many items in one process per core, for Python code that holds the GIL."""

import contextlib
import ctypes
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_processes(work: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """Yield `work(item)` of each item in order; a single item is done in this process.

    `work`, items and results must be picklable: `work` a module-level function or a partial of one, the others plain
    data.
    """
    workers = min(len(items), os.cpu_count() or 1)
    if workers <= 1:
        yield from map(work, items)
        return
    with ProcessPoolExecutor(workers, initializer=_begin) as pool:
        yield from pool.map(work, items)


def _begin() -> None:
    """Leave Ctrl-C to the parent, whose message is enough, and end when the parent ends (Linux)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent = 1  # PR_SET_PDEATHSIG
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").prctl(end_with_parent, signal.SIGTERM)
