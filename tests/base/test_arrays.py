"""Reading of .npy files: their values, and one kind of error for all that is wrong."""

import numpy as np
import psutil
import pytest
from wrong_arrays import DAMAGED, NPZ

from bla.base.arrays import SeveralArraysError, load_npy


@pytest.mark.parametrize("mmap_mode", [None, "r"])
@pytest.mark.parametrize("dtype", ["uint8", "bool", "int64", "float16", ">f4"])
def test_an_array_is_read_as_it_was_written(dtype, mmap_mode, tmp_path):
    array = np.arange(6).reshape(2, 3).astype(dtype)
    np.save(tmp_path / "a.npy", array)
    found = load_npy(tmp_path / "a.npy", mmap_mode)
    np.testing.assert_array_equal(found, array)
    assert found.dtype == array.dtype
    assert isinstance(found, np.memmap) == (mmap_mode == "r")


@pytest.mark.parametrize("mmap_mode", [None, "r"])
@pytest.mark.parametrize("kind", NPZ)
def test_several_arrays_are_refused_and_their_file_is_closed(kind, mmap_mode, tmp_path):
    path = tmp_path / "a.npy"
    NPZ[kind](path)
    with pytest.raises(SeveralArraysError) as error:  # its traceback keeps the file's object
        load_npy(path, mmap_mode)
    assert str(path.resolve()) not in [file.path for file in psutil.Process().open_files()]
    assert str(error.value) == "holds several arrays (.npz), not one"


@pytest.mark.parametrize("mmap_mode", [None, "r"])
@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_file_is_a_value_error(kind, mmap_mode, tmp_path):
    DAMAGED[kind](tmp_path / "a.npy")
    with pytest.raises(ValueError, match=r".+") as error:
        load_npy(tmp_path / "a.npy", mmap_mode)
    assert not isinstance(error.value, SeveralArraysError)


def test_a_whole_file_that_does_not_fit_in_memory_is_a_memory_error(tmp_path, monkeypatch):
    np.save(tmp_path / "a.npy", np.ones(3))
    load = np.load

    def full(path, mmap_mode, **options):
        if mmap_mode is None:
            raise MemoryError("Unable to allocate")
        return load(path, mmap_mode, **options)

    monkeypatch.setattr(np, "load", full)
    with pytest.raises(MemoryError, match="Unable to allocate"):
        load_npy(tmp_path / "a.npy")


def test_a_missing_file_and_objects_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_npy(tmp_path / "a.npy")
    np.save(tmp_path / "a.npy", np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="allow_pickle"):
        load_npy(tmp_path / "a.npy")
