"""Atomic files: each is written under a temporary name and renamed when it is complete."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path next to `path`; it is renamed to `path` if the block succeeds, and removed if it fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def save_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


def save_array(path: Path, array: NDArray[Any]) -> None:
    """Write one array as .npy."""
    with replacing(path) as part, part.open("wb") as file:
        file.write(npy_header(array.shape, array.dtype))
        file.write(np.ascontiguousarray(array).data)


def npy_header(shape: tuple[int, ...], dtype: Any) -> bytes:
    """The header of an .npy file, before the values."""
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue()
