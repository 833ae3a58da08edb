"""Arrays in .npy files, which may be larger than memory, and in .safetensors files."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from bla.base.arrays import SeveralArraysError, load_npy
from bla.base.errors import BlaError

if TYPE_CHECKING:
    from torch import Tensor

Value = TypeVar("Value")


def load_array(path: Path) -> NDArray[Any]:
    """Memory-map an .npy file, read-only."""
    try:
        return load_npy(path, mmap_mode="r")  # not copy-on-write: the system may refuse to reserve that much memory
    except SeveralArraysError as error:
        raise BlaError(f"{path}: {error}; delete it and run make repro") from error
    except ValueError as error:
        raise BlaError(f"{path}: damaged ({error}); delete it and run make repro") from error


def load_tensor(path: Path) -> "Tensor":
    """`load_array` as a tensor, which must not be modified."""
    import torch

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(load_array(path))


class ByName(dict[str, Value], Generic[Value]):
    """What a file holds, by name; BlaError, with the command that rebuilds the file, for a name that it lacks."""

    def __init__(self, values: Mapping[str, Value], path: Path, remedy: str) -> None:
        super().__init__(values)
        self.path, self.remedy = path, remedy

    def __missing__(self, name: str) -> NoReturn:
        raise BlaError(f"{self.path}: has no {name}; delete it and run {self.remedy}")


def load_arrays(path: Path, remedy: str = "make repro") -> ByName[NDArray[Any]]:
    """The arrays of a .safetensors file by name; BlaError, with the command that rebuilds it, if it is damaged."""
    try:
        return ByName(load_file(path), path, remedy)
    except SafetensorError as error:
        raise BlaError(f"{path}: damaged ({error}); delete it and run {remedy}") from error


def refuse_nan(path: Path, arrays: Mapping[str, NDArray[Any]], remedy: str) -> None:
    """Raise BlaError, naming file and array, if a number is NaN or infinite."""
    for name, values in arrays.items():
        if values.dtype.kind == "f" and (bad := int((~np.isfinite(values)).sum())):
            raise BlaError(
                f"{path}: {name}: {bad:,} of {values.size:,} numbers are NaN or infinite; delete it and run {remedy}"
            )
