"""Files that are never half-written: each is written beside its place and renamed when it is complete."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`; renamed to it when the block ends well, removed when it does not."""
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
        write_npy_header(file, array.shape, array.dtype)
        file.write(np.ascontiguousarray(array).data)


def write_npy_header(file: IO[bytes], shape: tuple[int, ...], dtype: Any) -> None:
    """The header of an .npy file, to which the values are then written as they come."""
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
