"""Which errors mean that memory ran out; Python, numpy, torch and the system each have their own."""

import errno

TEXTS = ("allocate memory", "out of memory", "bad_alloc", "failed to map segment")
"""Of torch on a CPU and on a GPU, of C++, and of the loader of libraries."""


def too_little_memory(error: BaseException) -> str | None:
    """What an error says about memory, in one line; None if it is an error of another kind."""
    said = isinstance(error, RuntimeError | ImportError | OSError) and any(text in str(error) for text in TEXTS)
    if not said and not isinstance(error, MemoryError) and getattr(error, "errno", None) != errno.ENOMEM:
        return None
    return str(error).partition("\n")[0] or "none left"
