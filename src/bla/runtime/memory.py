"""Memory: keep it for the next tensor; and which errors mean that it ran out (Python, numpy, torch and the system differ)."""

import ctypes
import errno
from contextlib import suppress

TRIM_THRESHOLD, MMAP_THRESHOLD, ARENA_MAX = -1, -3, -8
"""The options of glibc's mallopt: return memory if so much is free; serve so large a request apart; number of pools."""
TEXTS = ("allocate memory", "out of memory", "bad_alloc", "failed to map segment")
"""Of torch on a CPU and on a GPU, of C++, and of the loader of libraries."""


def too_little_memory(error: BaseException) -> str | None:
    """What an error says about memory, in one line; None if it is an error of another kind."""
    said = isinstance(error, RuntimeError | ImportError | OSError) and any(text in str(error) for text in TEXTS)
    if not said and not isinstance(error, MemoryError) and getattr(error, "errno", None) != errno.ENOMEM:
        return None
    return str(error).partition("\n")[0] or "none left"


def keep_freed_memory() -> None:
    """Let this process use freed memory again instead of returning it to the system; does nothing without glibc.

    The system clears returned memory before it gives it out again, page by page, which takes half the time of a small
    convolutional network on a CPU. One pool for all threads, so that each can use what another has freed. Call this
    before other threads start.
    """
    with suppress(OSError, TypeError, AttributeError):  # another C library, or another system
        set_option = ctypes.CDLL(None).mallopt
        for option, value in ((TRIM_THRESHOLD, 2**31 - 1), (MMAP_THRESHOLD, 2**25), (ARENA_MAX, 1)):
            set_option(option, value)
        set_option(MMAP_THRESHOLD, 2**30)  # refused by glibc before 2.35, whose limit is 2**25
