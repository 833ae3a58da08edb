"""Cached results: a key covers everything that decides a result.

    key = cache_key([Path(__file__), method_file], {"noise": 0.02}, [images, Path("models/heads/cub20.safetensors")])
    arrays = cached(Path(".work"), "maps-cub20-cam", key, make)

A key is a hash of the source of all modules that the work imports (`imports.closure`), the settings used, the content
of the data, the versions of numerical libraries, and the number of threads. So an outdated result is never used. Stored
files contain their own hash: a damaged file is reported and recomputed.

`fill_store` is for arrays that are written in chunks and may exceed memory; a killed stage resumes after its last full
chunk.
"""

import contextlib
import hashlib
import json
import math
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, is_dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bla.base.atomic import npy_header, replacing, save_text
from bla.runtime.imports import closure, name_of

if TYPE_CHECKING:
    import pandas as pd

Arrays = dict[str, NDArray[Any]]

LIBRARIES = ("numpy", "pandas", "pillow", "scikit-learn", "scipy", "timm", "torch", "torchvision")
"""Libraries whose versions are part of every key."""
KEY = "[0-9a-f]" * 16
"""The pattern of a key in a file name."""
READ_AT_ONCE = 1 << 22
"""Bytes of a file that are hashed at a time."""


def cache_key(
    work: Iterable[Path], settings: object, data: Iterable[object], packages: dict[str, Path] | None = None
) -> str:
    """A 16-digit hash of everything that decides a result.

    `work` are source files; their import closure counts too, but methods imported by name must be listed. `settings`
    are JSON values or dataclasses. `data` are files, hashed by content, and arrays or tensors, by dtype, shape and
    values. `packages` are our packages and their folders (`imports.PACKAGES`).
    """
    sources = [(name_of(path, packages), path.read_text()) for path in closure(work, False, packages)]
    versions = [_version(name) for name in LIBRARIES]
    parts = [sources, settings, [content_hash(item) for item in data], versions, _threads()]
    return hashlib.sha256(json.dumps(parts, default=_as_json, sort_keys=True).encode()).hexdigest()[:16]


def content_hash(item: object) -> str:
    """SHA-256 of a file's content, or of an array or tensor."""
    if isinstance(item, Path):
        with item.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    array = np.asarray(item.detach().cpu().numpy() if hasattr(item, "detach") else item, order="C")
    head = f"{array.dtype.str} {array.shape} ".encode()
    return hashlib.sha256(head + array.tobytes()).hexdigest()


def cached(folder: Path, name: str, key: str, make: Callable[[], Arrays]) -> Arrays:
    """The arrays that `make` returns, read from `folder` if they are stored under this name and key.

    Storing new arrays removes those of the same name with other keys.
    """
    from safetensors.numpy import save_file

    path = folder / f"{name}-{key}.safetensors"
    if path.exists():
        if (arrays := _intact(path)) is not None:
            return arrays
        print(f"{path}: damaged; computing it again", flush=True)
    arrays = {name: np.asarray(values, order="C") for name, values in make().items()}
    for stale in set(folder.glob(f"{name}-{KEY}.safetensors")) - {path}:
        stale.unlink()
    with replacing(path) as part:
        save_file(arrays, part, {"sha256": _hash_of(arrays)})
    return arrays


def is_cached(folder: Path, name: str, key: str) -> bool:
    """Whether a result is stored under this name and key."""
    return (folder / f"{name}-{key}.safetensors").exists()


def cached_table(folder: Path, name: str, key: str, make: "Callable[[], pd.DataFrame]") -> "pd.DataFrame":
    """`cached` for a table of numbers and texts; numbers are stored exactly, the index is dropped."""
    import pandas as pd

    def arrays() -> Arrays:
        columns = enumerate(make().items())
        return {f"{place:03} {column}": _as_array(values) for place, (column, values) in columns}

    stored = cached(folder, name, key, arrays)
    table = {column[4:]: values for column, values in sorted(stored.items())}
    texts = {column: json.loads(values.tobytes()) for column, values in table.items() if values.dtype == np.uint8}
    return pd.DataFrame(table | texts)


def _as_array(column: "pd.Series[Any]") -> NDArray[Any]:
    """Numbers unchanged, texts as the bytes of a JSON list."""
    values = column.to_numpy()
    return values if values.dtype.kind in "bif" else np.frombuffer(json.dumps(column.tolist()).encode(), np.uint8)


def _intact(path: Path) -> Arrays | None:
    """The arrays of a stored file; None if it is missing or damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it has no __iter__
            return arrays if (file.metadata() or {}).get("sha256") == _hash_of(arrays) else None
    except SafetensorError:
        return None


def _hash_of(arrays: Mapping[str, NDArray[Any]]) -> str:
    return hashlib.sha256(json.dumps([(n, content_hash(arrays[n])) for n in sorted(arrays)]).encode()).hexdigest()


def resume_store(folder: Path, name: str, key: str) -> Path:
    """The folder NAME-KEY of a long computation. Removes the folders of other keys, which cannot be resumed."""
    store = folder / f"{name}-{key}"
    for stale in set(folder.glob(f"{name}-{KEY}")) - {store}:
        shutil.rmtree(stale)
    return store


def fill_store(
    store: Path,
    arrays: Mapping[str, tuple[tuple[int, ...], Any]],
    rows: int,
    chunks: Callable[[int], Iterable[tuple[list[NDArray[Any]], list[Any]]]],
) -> list[Any]:
    """Write several arrays in chunks to `store/NAME.npy`, so that they need not fit in memory.

    `arrays` has the shape and dtype of each. `chunks(start)` yields the rows from number `start` on, in chunks: a part
    of each array, and a JSON list of notes about these rows. Returns all notes as one list. After a kill, the next call
    resumes after the last full chunk, or starts again if the stored rows do not have the recorded hash. `settle_store`
    then moves the arrays to their final places.
    """
    store.mkdir(parents=True, exist_ok=True)
    counter, diary = store / "done.json", store / "notes.jsonl"
    headers = {name: npy_header(shape, dtype) for name, (shape, dtype) in arrays.items()}
    row_bytes = {name: math.prod(shape) // rows * np.dtype(dtype).itemsize for name, (shape, dtype) in arrays.items()}
    done, notes, hashes = _resumable(store, counter, diary, row_bytes, headers)
    if not done:  # otherwise a kill before the first chunk would leave the row count of earlier arrays
        counter.unlink(missing_ok=True)
    save_text(diary, "".join(f"{line}\n" for line in notes))
    files = []
    # Not a memory map: on a full disk it would kill the process instead of raising an error.
    with contextlib.ExitStack() as stack:
        for name in arrays:
            file = stack.enter_context((store / f"{name}.npy").open("r+b" if done else "wb"))
            file.write(headers[name])
            file.seek(file.tell() + row_bytes[name] * done)
            file.truncate()
            files.append(file)
        writer = stack.enter_context(diary.open("a"))
        for parts, more in chunks(done) if done < rows else ():  # all rows exist if a later step was interrupted
            for file, part, (name, (_, dtype)) in zip(files, parts, arrays.items(), strict=True):
                values = np.ascontiguousarray(part, dtype).data
                hashes[name].update(values)
                file.write(values)
                file.flush()
            done += len(parts[0])
            notes.append(json.dumps(more))
            hashes[diary.name].update(f"{notes[-1]}\n".encode())
            writer.write(f"{notes[-1]}\n")
            writer.flush()
            digests = {name: digest.hexdigest() for name, digest in hashes.items()}
            save_text(counter, json.dumps({"rows": done, "notes": len(notes), "sha256": digests}))
    assert done == rows, f"{done} rows written, {rows} announced"
    return [row for line in notes for row in json.loads(line)]


def _resumable(
    store: Path, counter: Path, diary: Path, row_bytes: Mapping[str, int], headers: Mapping[str, bytes]
) -> tuple[int, list[str], Any]:
    """The number of complete rows of a store, their notes and hashes; no rows if a header or hash is another one."""
    fresh, hashes = ({name: hashlib.sha256() for name in (*row_bytes, diary.name)} for _ in range(2))
    if not counter.exists() or not all((store / f"{name}.npy").exists() for name in row_bytes):
        return 0, [], fresh
    try:
        state = json.loads(counter.read_text())
        rows, recorded = state["rows"], state["sha256"]
        if type(rows) is not int or rows < 0:  # isinstance would accept true
            raise TypeError
        notes = diary.read_text().splitlines()[: state["notes"]]
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        rows, recorded, notes = 0, {}, []
    for line in notes:
        hashes[diary.name].update(f"{line}\n".encode())  # with line breaks, so that two joined lines differ
    for name in row_bytes:
        with (store / f"{name}.npy").open("rb") as file:
            remaining = rows * row_bytes[name] if file.read(len(headers[name])) == headers[name] else 0
            while remaining and (part := file.read(min(remaining, READ_AT_ONCE))):
                hashes[name].update(part)
                remaining -= len(part)
            if remaining:  # the count is wrong
                recorded = {}
    if {name: digest.hexdigest() for name, digest in hashes.items()} != recorded:
        print(f"{store}: was changed since it was written; starting again", flush=True)
        return 0, [], fresh
    return rows, notes, hashes


def settle_store(store: Path, places: Mapping[str, Path]) -> None:
    """Move the arrays of a filled store to their places, and remove it."""
    for name, path in places.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        (store / f"{name}.npy").replace(path)
    shutil.rmtree(store)


def _threads() -> int | None:
    """The number of torch's threads, which affects last digits; None if torch is not imported."""
    torch = sys.modules.get("torch")
    return torch.get_num_threads() if torch else None


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _as_json(value: object) -> object:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    raise TypeError(f"{value!r} cannot be part of a cache key")
