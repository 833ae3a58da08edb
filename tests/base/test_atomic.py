"""Files are replaced only when the new content is complete."""

import contextlib

import numpy as np
import pytest

from bla.base.atomic import replacing, save_array, save_text


@pytest.mark.parametrize("error", [None, OSError, KeyboardInterrupt])
def test_a_file_is_replaced_only_when_the_new_one_is_complete(error, tmp_path, contents):
    path = tmp_path / "new" / "a.txt"
    save_text(path, "old")
    with pytest.raises(error) if error else contextlib.nullcontext(), replacing(path) as part:
        part.write_text("new")
        assert path.read_text() == "old"
        if error:
            raise error
    assert contents(tmp_path) == {"new/a.txt": b"old" if error else b"new"}


def test_a_partial_file_left_by_a_kill_is_overwritten(tmp_path, contents):
    (tmp_path / "a.txt.part").write_text("half of a longer text")
    save_text(tmp_path / "a.txt", "new")
    assert contents(tmp_path) == {"a.txt": b"new"}


def test_texts_are_utf_8(tmp_path, monkeypatch):
    monkeypatch.setenv("LC_ALL", "C")
    save_text(tmp_path / "a.txt", "ä ≤ β\n")
    assert (tmp_path / "a.txt").read_bytes() == "ä ≤ β\n".encode()


@pytest.mark.parametrize("dtype", ["uint8", "bool", "int64", "float16", ">f4"])
@pytest.mark.parametrize("shape", [(7, 3, 2), (7,), (0, 4)])
def test_arrays_have_the_same_bytes_as_with_np_save(shape, dtype, tmp_path, contents):
    array = np.random.default_rng(0).integers(0, 2, shape).astype(dtype)
    np.save(tmp_path / "expected.npy", array)
    save_array(tmp_path / "whole.npy", array)
    assert len(set(contents(tmp_path).values())) == 1


def test_a_view_is_written_in_the_order_of_its_values(tmp_path):
    array = np.arange(12).reshape(3, 4).T
    save_array(tmp_path / "a.npy", array)
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), array)
