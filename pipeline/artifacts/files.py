"""Files that are never half-written: each is written beside its place and renamed when it is complete."""

import contextlib
import hashlib
import json
import math
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bla.base.errors import BlaError
from pipeline.run.stage import WORK

if TYPE_CHECKING:
    from torch import Tensor


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
    with replacing(path) as part, part.open("wb") as file:
        _write_header(file, array.shape, array.dtype)
        file.write(np.ascontiguousarray(array).data)


def content_key(told: list[Any]) -> str:
    """Sixteen hexadecimal digits that tell one JSON value from any other."""
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]


def resume_store(name: str, told: list[Any]) -> Path:
    """The folder .work/NAME-KEY of a long stage; its key tells apart whatever decides a byte (`content_key`).

    What an earlier run left under NAME and another key can never be gone on with, and is removed.
    """
    store = WORK / f"{name}-{content_key(told)}"
    for stale in set(WORK.glob(f"{name}-" + "[0-9a-f]" * 16)) - {store}:
        shutil.rmtree(stale)
    return store


def fill_store(
    store: Path,
    arrays: dict[str, tuple[tuple[int, ...], Any]],
    rows: int,
    chunks: Callable[[int], Iterable[tuple[list[NDArray[Any]], list[Any]]]],
) -> list[Any]:
    """Write arrays that grow together, chunk by chunk, to `store/NAME.npy`, so that they need never be in memory whole.

    `arrays` gives the shape and dtype of each; `chunks(start)` yields what comes after the first `start` of `rows` rows:
    a part of each array, and what else is to be known of these rows, as a list for JSON. Those lists are returned as one.
    A killed stage leaves the store as it is, and the next goes on after its last whole chunk. `settle_store` moves the arrays to their places.
    """
    store.mkdir(parents=True, exist_ok=True)
    counter, diary = store / "done.json", store / "known.jsonl"
    whole = counter.exists() and all((store / f"{name}.npy").exists() for name in arrays)
    done, lines = json.loads(counter.read_text()) if whole else (0, 0)
    known = diary.read_text().splitlines()[:lines] if done else []
    if not done:  # else a kill before the first chunk would leave the count of the arrays that were here before
        counter.unlink(missing_ok=True)
    save_text(diary, "".join(f"{line}\n" for line in known))
    files = []
    # Sequential writes on purpose: a memory map on a full disk kills the process instead of raising an error.
    with contextlib.ExitStack() as stack:
        for name, (shape, dtype) in arrays.items():
            file = stack.enter_context((store / f"{name}.npy").open("r+b" if done else "wb"))
            _write_header(file, shape, dtype)
            file.seek(file.tell() + math.prod(shape) // rows * done * np.dtype(dtype).itemsize)
            file.truncate()
            files.append(file)
        writer = stack.enter_context(diary.open("a"))
        for parts, more in chunks(done):
            for file, part, (_, dtype) in zip(files, parts, arrays.values(), strict=True):
                file.write(np.ascontiguousarray(part, dtype).data)
                file.flush()
            done += len(parts[0])
            known.append(json.dumps(more))
            writer.write(f"{known[-1]}\n")
            writer.flush()
            save_text(counter, json.dumps([done, len(known)]))
    assert done == rows, f"{done} rows written, {rows} announced"
    return [row for line in known for row in json.loads(line)]


def settle_store(store: Path, places: dict[str, Path]) -> None:
    """Move the arrays of a filled store to their places, and remove it."""
    for name, path in places.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        (store / f"{name}.npy").replace(path)
    shutil.rmtree(store)


def _write_header(file: IO[bytes], shape: tuple[int, ...], dtype: Any) -> None:
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


def load_array(path: Path) -> NDArray[Any]:
    """Memory-map an .npy file, which may be larger than memory; the array cannot be written to."""
    try:  # not copy-on-write: a system may refuse to promise memory for so many pages
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (EOFError, ValueError) as error:
        raise BlaError(f"{path}: damaged ({error}); delete it and run make repro") from error
    return array


def load_tensor(path: Path) -> "Tensor":
    """`load_array` as a tensor, which must not be written to either."""
    import torch

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(load_array(path))


def save_table(path: Path, table: pd.DataFrame, floats: str | None = "%.6g") -> None:
    """Write a table as CSV; floats keep six digits, or all with `floats=None`, where a page is made of the CSV."""
    with replacing(path) as part:
        table.to_csv(part, index=False, float_format=floats, lineterminator="\n")


def save_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")
