"""Files that are never half-written: each is written beside its place and renamed when it is complete."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bla.errors import BlaError


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


def save_array(path: Path, array: NDArray[Any]) -> None:
    """Write one array as .npy."""
    save_chunks(path, [array], array.shape, array.dtype)


def save_chunks(path: Path, chunks: Iterable[NDArray[Any]], shape: tuple[int, ...], dtype: Any) -> None:
    """Write an array that arrives in chunks along its first axis as .npy, so that it need never be in memory whole.

    Sequential writes on purpose: a memory map on a full disk kills the process instead of raising an error.
    """
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    with replacing(path) as part, part.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        rows = 0
        for chunk in chunks:
            file.write(np.ascontiguousarray(chunk, dtype).data)
            rows += len(chunk)
        assert rows == shape[0], f"{path}: {rows} rows written, {shape[0]} announced"


def load_array(path: Path) -> NDArray[Any]:
    """Memory-map an .npy file; changes to the array never reach the file."""
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="c", allow_pickle=False)
    except (EOFError, ValueError) as error:
        raise BlaError(f"{path}: damaged ({error}); delete it and run make repro") from error
    return array


def save_table(path: Path, table: pd.DataFrame, floats: str | None = "%.6g") -> None:
    """Write a table as CSV; floats keep six digits, or all with `floats=None`, where a page is made of the CSV."""
    with replacing(path) as part:
        table.to_csv(part, index=False, float_format=floats, lineterminator="\n")


def save_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")
