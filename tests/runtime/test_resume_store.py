"""Stores: arrays that grow chunk by chunk and resume after their last complete chunk, whatever stopped them."""

import contextlib
import io
import json

import numpy as np
import pytest

from bla.base.atomic import save_text
from bla.runtime.cache import fill_store, resume_store, settle_store

RNG = np.random.default_rng(0)
ARRAYS = {  # written together: eight rows, the first array as two draws of four
    "features": RNG.random((2, 4, 3, 5)).astype(np.float16),
    "images": RNG.integers(0, 256, (8, 3, 2), dtype=np.uint8),
    "masks": RNG.integers(0, 2, (8, 3)).astype(bool),
    "labels": np.arange(8).astype(">i4"),
}
NOTES = [[number, f"row {number}"] for number in range(8)]


class Filling:
    """`fill_store` with ARRAYS, three rows per chunk; `starts` lists the first row of each call."""

    def __init__(self, folder, contents):
        self.folder, self.store, self.contents, self.starts = folder, folder / "store", contents, []

    def __call__(self, stop_at=None):
        """The notes of all rows; `stop_at` interrupts before that row is ready."""

        def chunks(start):
            self.starts.append(start)
            for first in range(start, 8, 3):
                if stop_at is not None and first >= stop_at:
                    raise KeyboardInterrupt
                rows = slice(first, first + 3)
                yield [array.reshape(8, -1)[rows] for array in ARRAYS.values()], NOTES[rows]

        shapes = {name: (array.shape, array.dtype) for name, array in ARRAYS.items()}
        return fill_store(self.store, shapes, 8, chunks)

    def settled(self):
        """The bytes of the arrays at their final paths."""
        settle_store(self.store, {name: self.folder / f"new/{name}.npy" for name in ARRAYS})
        return self.contents(self.folder)


@pytest.fixture
def filling(tmp_path, contents):
    return Filling(tmp_path, contents)


def test_a_complete_store_is_not_filled_again(filling):
    assert filling() == NOTES
    assert filling() == NOTES  # as after a kill before its arrays were used
    assert filling.starts == [0]
    assert filling.settled() == WHOLE


def bytes_of_np_save(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


WHOLE = {f"new/{name}.npy": bytes_of_np_save(array) for name, array in ARRAYS.items()}


def test_the_same_key_opens_the_same_store_and_another_key_removes_it(tmp_path):
    key, other = "0123456789abcdef", "fedcba9876543210"
    for path in (
        (first := resume_store(tmp_path, "features-a-train", key)),
        resume_store(tmp_path, "features-a-test", key),
    ):
        path.mkdir()
    assert resume_store(tmp_path, "features-a-train", key) == first
    assert first.exists()
    assert resume_store(tmp_path, "features-a-train", other) != first
    assert [path.name for path in tmp_path.iterdir()] == [f"features-a-test-{key}"]


def test_a_store_has_the_same_bytes_as_np_save(filling):
    assert filling() == NOTES
    assert filling.settled() == WHOLE


LONGER = ["features.npy", "images.npy", "labels.npy", "notes.jsonl"]


@pytest.mark.parametrize("longer", [[], *([name] for name in LONGER), LONGER])
@pytest.mark.parametrize(("stop_at", "start"), [(0, 0), (3, 3), (6, 6), (7, 8)])
def test_a_store_resumes_after_its_last_whole_chunk(stop_at, start, longer, filling):
    with pytest.raises(KeyboardInterrupt) if stop_at < 7 else contextlib.nullcontext():
        filling(stop_at)
    for name in longer:  # the chunk that was being written
        with (filling.store / name).open("ab") as file:
            file.write(b"[[99, half")
    assert filling() == NOTES
    assert filling.starts == ([0, start] if start < 8 else [0])  # a complete store is not filled again
    assert filling.settled() == WHOLE


def test_a_store_can_be_interrupted_many_times(filling):
    for stop_at in (0, 3, 3, 6):
        with pytest.raises(KeyboardInterrupt):
            filling(stop_at)
    assert filling() == NOTES
    assert filling.starts == [0, 0, 3, 3, 6]
    assert filling.settled() == WHOLE


@pytest.mark.parametrize("missing", [*(f"{name}.npy" for name in ARRAYS), "done.json"])
@pytest.mark.parametrize("interrupted_again", [False, True])
def test_a_store_with_a_missing_file_starts_from_the_first_row(interrupted_again, missing, filling):
    filling()
    (filling.store / missing).unlink()
    if interrupted_again:
        with pytest.raises(KeyboardInterrupt):
            filling(0)
    assert filling() == NOTES
    assert filling.starts == [0] * (3 if interrupted_again else 2)
    assert filling.settled() == WHOLE


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize("damage", ["a flipped bit", "cut short", "empty", "another header", "a bracket", "a comma"])
def test_a_store_with_changed_rows_starts_from_the_first_row(damage, name, filling, capsys):
    with pytest.raises(KeyboardInterrupt):
        filling(6)
    path = filling.store / f"{name}.npy"
    content = bytearray(path.read_bytes())
    if damage == "a flipped bit":
        content[130] ^= 1  # behind the header of 128 bytes
    elif damage == "another header":
        content[:6] = b"header"
    elif damage in ("a bracket", "a comma"):  # a header that numpy cannot read as Python
        content[content.index(b"}" if damage == "a bracket" else b":")] = ord("(" if damage == "a bracket" else ",")
    path.write_bytes(content[: {"cut short": 130, "empty": 0}.get(damage)])
    assert filling() == NOTES
    assert filling.starts == [0, 0]
    assert str(filling.store) in capsys.readouterr().out
    assert filling.settled() == WHOLE


HEADERS = {
    "a shape of texts": "{'descr': '|b1', 'fortran_order': False, 'shape': ('8', '3'), }",
    "a shape of huge numbers": f"{{'descr': '|b1', 'fortran_order': False, 'shape': ({10**30}, {10**30}), }}",
    "another shape": "{'descr': '|b1', 'fortran_order': False, 'shape': (3, 8), }",
    "the order as a number": "{'descr': '|b1', 'fortran_order': 0, 'shape': (8, 3), }",
    "another order": "{'descr': '|b1', 'fortran_order': True, 'shape': (8, 3), }",
    "a type in brackets": "{'descr': ('|b1',), 'fortran_order': False, 'shape': (8, 3), }",
    "a key that is a list": "{[]: 1}",
    "nested": "-" * 117,
    "no text": "\0" * 117,
}


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS.keys())
def test_a_store_with_any_other_header_starts_from_the_first_row(header, filling, capsys):
    with pytest.raises(KeyboardInterrupt):
        filling(6)
    path = filling.store / "masks.npy"
    content = path.read_bytes()
    text = f"{header:117}\n".encode()  # as long as the right one, so that the values stay in their place
    path.write_bytes(content[:8] + len(text).to_bytes(2, "little") + text + content[10 + len(text) :])
    assert filling() == NOTES
    assert filling.starts == [0, 0]
    assert f"{filling.store}: was changed since it was written" in capsys.readouterr().out
    assert filling.settled() == WHOLE


@pytest.mark.parametrize("bytes_kept", [0, 7, 9, 60, 127])
def test_a_store_with_a_truncated_header_starts_from_the_first_row(bytes_kept, filling, capsys):
    with pytest.raises(KeyboardInterrupt):
        filling(6)
    path = filling.store / "masks.npy"
    path.write_bytes(path.read_bytes()[:bytes_kept])
    assert filling() == NOTES
    assert filling.starts == [0, 0]
    assert f"{filling.store}: was changed since it was written" in capsys.readouterr().out
    assert filling.settled() == WHOLE


@pytest.mark.parametrize("missing", [True, False])
def test_a_store_without_its_notes_starts_from_the_first_row(missing, filling):
    with pytest.raises(KeyboardInterrupt):
        filling(6)
    if missing:
        (filling.store / "notes.jsonl").unlink()
    else:
        save_text(filling.store / "notes.jsonl", "")
    assert filling() == NOTES
    assert filling.starts == [0, 0]
    assert filling.settled() == WHOLE


NOTES_DAMAGE = {
    "two records on a line": lambda first, second: first + second,
    "joined before the chunk that was being written": lambda first, second: first + second + "\n[[99, half",
    "a record over two lines": lambda first, second: f"{first[:9]}\n{first[9:]}{second}\n",
    "a line cut in the middle": lambda first, second: f"{first[:9]}\n{second}\n",
    "the last line cut in the middle": lambda first, second: f"{first}\n{second[:9]}",
    "a line cut with its end": lambda first, second: f"{first[:9]}{second}\n",
}


@pytest.mark.parametrize("damage", NOTES_DAMAGE.values(), ids=NOTES_DAMAGE.keys())
def test_a_store_with_damaged_notes_starts_from_the_first_row(damage, filling, capsys):
    with pytest.raises(KeyboardInterrupt):
        filling(6)
    diary = filling.store / "notes.jsonl"
    save_text(diary, damage(*diary.read_text().splitlines()))
    assert filling() == NOTES
    assert filling.starts == [0, 0]
    assert f"{filling.store}: was changed since it was written" in capsys.readouterr().out
    assert filling.settled() == WHOLE


@pytest.mark.parametrize("text", ["", "{", "[3, 1]", json.dumps({"rows": 3}), "[" * 200_000])
def test_a_store_with_a_damaged_count_starts_from_the_first_row(text, filling):
    with pytest.raises(KeyboardInterrupt):
        filling(6)
    save_text(filling.store / "done.json", text)
    assert filling() == NOTES
    assert filling.starts == [0, 0]
    assert filling.settled() == WHOLE


@pytest.mark.parametrize("rows", [-117, 1.7, 1e7, "x", "6", True, None, [6]])
def test_a_count_that_is_no_number_of_rows_starts_from_the_first_row(rows, filling, capsys):
    with pytest.raises(KeyboardInterrupt):
        filling(6)
    counter = filling.store / "done.json"
    save_text(counter, json.dumps(json.loads(counter.read_text()) | {"rows": rows}))
    assert filling() == NOTES
    assert filling.starts == [0, 0]
    assert f"{filling.store}: was changed since it was written" in capsys.readouterr().out
    assert filling.settled() == WHOLE


@pytest.mark.parametrize("before", [3, 6])
@pytest.mark.parametrize("more", [1, 2, 100])
def test_a_count_of_rows_that_were_never_written_starts_from_the_first_row(before, more, filling):
    with pytest.raises(KeyboardInterrupt):
        filling(before)
    counter = filling.store / "done.json"
    state = json.loads(counter.read_text())
    save_text(counter, json.dumps(state | {"rows": state["rows"] + more}))
    assert filling() == NOTES
    assert filling.starts == [0, 0]
    assert filling.settled() == WHOLE


def test_finished_arrays_replace_existing_files(filling):
    filling()
    save_text(filling.folder / "new/images.npy", "earlier")
    assert filling.settled() == WHOLE
    assert not filling.store.exists()


def test_a_store_with_the_wrong_number_of_rows_is_not_published(tmp_path):
    with pytest.raises(AssertionError, match="2 rows written, 3 announced"):
        fill_store(tmp_path / "store", {"a": ((3,), float)}, 3, lambda _: [([np.zeros(2)], [])])
