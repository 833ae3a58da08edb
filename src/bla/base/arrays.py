"""Reading of .npy files."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bla.base.files import refuse_pipe


class SeveralArraysError(ValueError):
    """An .npz file in place of an .npy file."""


def load_npy(path: Path, mmap_mode: Literal["r"] | None = None) -> NDArray[Any]:
    """The array of an .npy file, in memory or memory-mapped; OSError or ValueError if it cannot be read, or is .npz.

    MemoryError if a whole file does not fit in memory.
    """
    refuse_pipe(path)
    try:
        array: Any = np.load(path, mmap_mode=mmap_mode, allow_pickle=False)
    except (OSError, ValueError):
        raise
    except MemoryError:
        if not mmap_mode:
            load_npy(path, "r")  # ValueError if the file is shorter than its header says
        raise
    except Exception as error:  # numpy raises any kind for a damaged header
        raise ValueError(str(error)) from error
    if isinstance(array, np.ndarray):
        return array
    array.close()
    raise SeveralArraysError("holds several arrays (.npz), not one")
