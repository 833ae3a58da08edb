"""Reading of .npy files."""

from pathlib import Path
from tokenize import TokenError
from typing import Any, Literal
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray


class SeveralArraysError(ValueError):
    """An .npz file in place of an .npy file."""


def load_npy(path: Path, mmap_mode: Literal["r"] | None = None) -> NDArray[Any]:
    """The array of an .npy file, in memory or memory-mapped; OSError or ValueError if it cannot be read, or is .npz."""
    try:
        array: Any = np.load(path, mmap_mode=mmap_mode, allow_pickle=False)
    except (EOFError, SyntaxError, TokenError, BadZipFile) as error:  # the last three: a damaged header
        raise ValueError(str(error)) from error
    if isinstance(array, np.ndarray):
        return array
    array.close()
    raise SeveralArraysError("holds several arrays (.npz), not one")
