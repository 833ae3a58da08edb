"""Work on many items in one process per core, for Python code that holds the GIL."""

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
    # Ctrl-C reaches every process; one message is enough
    with ProcessPoolExecutor(workers, initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN)) as pool:
        yield from pool.map(work, items)
