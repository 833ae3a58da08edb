"""Files that are none, names that cannot be read, numbers that are none, and tables that a spreadsheet would run."""

import os
import socket
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file, save_file
from wrong_arrays import DAMAGED, NPZ, TOO_LARGE

import bla
from bla.base.arrays import load_npy
from bla.base.download import Source, fetch
from bla.base.errors import BlaError
from bla.base.specs import Backbone, ImageTable
from bla.datasets import image_table
from bla.experiments.explanations.user_study.answers import read_answers
from bla.networks.backbones import load_backbone
from bla.own_classifier.labels import read_labels
from bla.own_classifier.named import load_classifier
from bla.own_classifier.weights import read_weights
from pipeline.artifacts.arrays import load_array
from pipeline.artifacts.models import load_head, load_state
from pipeline.artifacts.tables import load_table, save_table
from pipeline.run.stage import run_stage


def socket_at(path):
    with socket.socket(socket.AF_UNIX) as own:
        here = Path.cwd()
        os.chdir(path.parent)  # the address of a socket may be short only
        own.bind(path.name)
        os.chdir(here)


@pytest.mark.parametrize(
    ("make", "reason"),
    [(os.mkfifo, "a pipe, socket or device"), (socket_at, "a pipe, socket or device"), (os.mkdir, "Is a directory")],
    ids=["pipe", "socket", "folder"],
)
@pytest.mark.parametrize("place", ["train/dog/z.png", "masks/test/cat/0.png"])
def test_something_that_is_no_file_is_named_and_nothing_waits_for_it(place, make, reason, photos, end_of):
    (photos / place).unlink(missing_ok=True)
    make(photos / place)
    message = end_of("prepare", "photos")
    if place.startswith("train"):  # the new image has no mask either
        assert "1 of 9 masks are missing: masks/train/dog/z.png" in message
        (photos / "masks" / place).write_bytes((photos / "masks/train/dog/0.png").read_bytes())
        message = end_of("prepare", "photos")
    missing = "1 of 8 masks are missing: masks/test/cat/0.png"
    assert missing in message if place.startswith("masks") else f"{place}: " in message and reason in message
    assert not list(Path("data/images").glob("photos/*.npy"))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (os.mkfifo, "a pipe, socket or device"),
        (socket_at, "a pipe, socket or device"),
        (lambda path: path.symlink_to("/dev/zero"), "a pipe, socket or device"),
        (os.mkdir, ".*"),
    ],
    ids=["pipe", "socket", "device", "folder"],
)
def test_weights_that_are_no_file_are_named_and_nothing_waits_for_them(make, reason, tmp_path):
    path = tmp_path / "w.safetensors"
    make(path)
    spec = Backbone(architecture="test_resnet", weights=path.name, normalisation="half")
    with pytest.raises(BlaError, match=rf"w.safetensors: not a readable .safetensors file \({reason}\); name another"):
        load_backbone(spec, path, 64)
    for read in (read_weights, lambda path: load_classifier("resnet18", path)):
        with pytest.raises(BlaError, match=r"w.safetensors: not a file, but a folder, pipe, socket or device; name a "):
            read(path)


@pytest.mark.parametrize("name", [b"\xff\xfe", b"caf\xe9"])
def test_a_name_that_is_not_utf_8_is_shown_by_its_bytes(name, photos, end_of):
    folder = Path(os.fsdecode(os.fsencode(photos / "train") + b"/" + name))
    folder.mkdir()
    assert f"the name {name!r} is not UTF-8; rename it" in end_of("prepare", "photos")
    folder.rmdir()
    Path(os.fsdecode(os.fsencode(photos / "train/cat") + b"/" + name + b".png")).write_bytes(b"x")
    assert f"the name {name + b'.png'!r} is not UTF-8" in end_of("prepare", "photos")


@pytest.mark.parametrize(("one", "other"), [("é", "e\u0301"), ("Å", "A\u030a"), ("ñu", "n\u0303u")])
def test_names_that_look_the_same_are_shown_with_their_code_points(one, other, photos, end_of):
    (photos / "train" / one).mkdir()
    (photos / "test" / other).mkdir()
    message = end_of("prepare", "photos")
    assert "two names look the same" in message
    assert f"U+{ord(one[0]):04X}" in message
    assert f"U+{ord(other[1]):04X}" in message


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_weight_that_is_no_number_stops_the_stage_and_names_file_and_array(value, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path, name, load in (
        ("models/heads/d.safetensors", "head.bias", lambda: load_head("d")),
        ("models/learned/d/bla.safetensors", "module.weight", lambda: load_state("d", "bla")),
    ):
        Path(path).parent.mkdir(parents=True)
        arrays = {"head.weight": np.ones((2, 3, 4), np.float32), name: np.ones((2, 3), np.float32)}
        arrays[name][1, 2] = value
        save_file(arrays, path)
        with pytest.raises(BlaError) as error:
            load()
        assert str(error.value).startswith(f"{path}: {name}: 1 of 6 numbers are NaN or infinite; delete it and run ")


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "file"), [("maps", "data/lime"), ("faithfulness", "data/maps")])
def test_a_map_with_some_nan_is_damaged(stage, file, explained, end_of):
    path = Path(file) / "painted_birds.safetensors"
    arrays = load_file(path)
    name = "maps" if stage == "maps" else "maps/bla_t"
    arrays[name].reshape(-1)[3] = np.nan
    save_file(arrays, path, {"levels": "a\nb"})
    assert f"{path}: {name}: NaN or infinite numbers within a map; delete it" in end_of(stage, "painted_birds")


@pytest.mark.parametrize("kind", NPZ)
def test_an_npz_in_place_of_an_npy_is_refused(kind, tmp_path):
    NPZ[kind](tmp_path / "a.npy")
    with pytest.raises(
        BlaError, match=r"a\.npy: holds several arrays \(\.npz\), not one; delete it and run make repro$"
    ):
        load_array(tmp_path / "a.npy")


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_npy_is_named_with_the_remedy(kind, tmp_path):
    DAMAGED[kind](tmp_path / "a.npy")
    with pytest.raises(BlaError, match=r"a\.npy: damaged \(.+\); delete it and run make repro$"):
        load_array(tmp_path / "a.npy")


@pytest.mark.parametrize("what", TOO_LARGE)
def test_an_allocation_that_no_machine_can_make_is_one_message_with_the_remedy(what, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        run_stage(lambda: lambda dataset: TOO_LARGE[what](), "prepare", ["photos"])
    message = end.value.code
    reason = {"Python": "none left", "numpy": "Unable to allocate ", "torch": "[enforce fail at "}[what.split()[-1]]
    assert message.startswith(f"error in prepare photos: too little memory ({reason}")
    remedy = "close other programs, or set `images_in_memory` in the dataset's `training`, and run again"
    assert message.endswith(f"); {remedy}")
    assert "\n" not in message


@pytest.mark.slow
def test_too_little_memory_is_one_message(photos, here, process, message_of):
    limit = "import resource; resource.setrlimit(resource.RLIMIT_AS, (2_500_000_000, 2_500_000_000))"
    eat = f"{limit}\nimport pipeline.stages.prepare as p\np.load_settings = lambda: bytearray(10**10)"
    message = message_of(process(here, "prepare", "photos", before=eat))
    assert message.startswith("error in prepare photos: too little memory (")
    assert message.endswith("and run again")


def test_an_array_with_any_damaged_byte_of_its_header_is_damaged_or_intact(tmp_path):
    """A flipped bit of a dimension leaves a valid header; the stage's own check of shapes and hashes finds that."""
    path = tmp_path / "a.npy"
    np.save(path, np.arange(6.0).reshape(2, 3))
    intact, messages = path.read_bytes(), []
    for place in range(len(intact) - 48):
        for bit in (0, 3, 7):
            path.write_bytes(intact[:place] + bytes([intact[place] ^ 1 << bit]) + intact[place + 1 :])
            try:
                load_array(path)
            except BlaError as error:
                messages.append(str(error))
    assert len(messages) > 100
    assert all(text.startswith(f"{path}: ") and text.endswith("delete it and run make repro") for text in messages)


@pytest.mark.parametrize("bytes_kept", [4, 30, 200])
def test_a_truncated_npz_in_place_of_an_array_is_damaged(bytes_kept, tmp_path):
    np.savez(tmp_path / "a.npz", np.ones(30))
    (tmp_path / "a.npy").write_bytes((tmp_path / "a.npz").read_bytes()[:bytes_kept])
    with pytest.raises(BlaError, match=r"a\.npy: damaged .*; delete it and run make repro"):
        load_array(tmp_path / "a.npy")


FORMULAS = [
    "=cmd|' /C calc'!A0",
    "@SUM(1+1)",
    "+1+cmd",
    "-2+3",
    "\tx",
    "\r=1",
    "'=1",
    "''@x",
    "=",
    "-",
    "＝1+1",
    "＠SUM(1)",
]
TEXTS = ["cat", "-1.5", "+2e-3", "'quoted", "a=b", "1", ""]


def test_no_text_of_a_table_is_a_formula_and_all_are_read_back(tmp_path):
    table = pd.DataFrame({"name": [*FORMULAS, *TEXTS], "value": np.arange(len(FORMULAS) + len(TEXTS)) - 3.5})
    save_table(tmp_path / "t.csv", table)
    raw = pd.read_csv(tmp_path / "t.csv", keep_default_na=False, dtype={"name": str}, lineterminator="\n")["name"]
    assert all(text.startswith("'") for text in raw[: len(FORMULAS)])
    assert raw[len(FORMULAS) :].tolist() == TEXTS
    found = load_table(tmp_path / "t.csv", keep_default_na=False, dtype={"name": str})
    assert found["name"].tolist() == table["name"].tolist()
    assert found["value"].tolist() == table["value"].tolist()


def test_class_folders_like_formulas_are_classes_like_any_other(photos, end_of):
    for split in ("train", "test", "masks/train", "masks/test"):
        (photos / split / "cat").rename(photos / split / "=cmd|x")
        (photos / split / "dog").rename(photos / split / "@SUM(1)")
    assert end_of("prepare", "photos") is None
    assert load_table(Path("data/images/photos/classes.csv"))["name"].tolist() == ["=cmd|x", "@SUM(1)"]
    assert "\n0,'=cmd|x\n1,'@SUM(1)\n" in Path("data/images/photos/classes.csv").read_text()


@pytest.mark.parametrize("name", ["a\r=cmd|x", "a\nb", "a\u2028b", "cat\x85", "\x0b"])
def test_a_name_with_a_line_break_would_begin_a_row_and_is_refused(name, photos, end_of):
    for split in ("train", "test", "masks/train", "masks/test"):
        (photos / split / "cat").rename(photos / split / name)
    assert f"the name {name!r} has a line break" in end_of("prepare", "photos")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        *[("cat", "cat\u200b"), ("cat", "c\u00adat"), ("cat", "cat "), (" ", "\u3000"), ("a cat", "a\u00a0cat")],
        *[("cat", "cat\ufe0f"), ("cat", "cat\u3164"), ("a cat", "a\u2009cat")],
    ],
)
def test_names_that_differ_only_in_what_cannot_be_seen_are_refused(one, other, photos, end_of):
    for split in ("train", "test", "masks/train", "masks/test"):
        (photos / split / "cat").rename(photos / split / one)
        (photos / split / "dog").rename(photos / split / other)
    message = end_of("prepare", "photos")
    assert "two names look the same" in message
    odd = next(letter for letter in reversed(other) if letter not in one)
    assert f"U+{ord(odd):04X}" in message


@pytest.mark.parametrize("target", ["gone", "zz"], ids=["missing", "itself"])
def test_a_class_that_is_a_link_to_nothing_is_named(target, photos, end_of):
    for split in ("train", "test"):
        (photos / split / "zz").symlink_to(target)
    assert "train/zz: a link to nothing; remove it" in end_of("prepare", "photos")


@pytest.mark.parametrize(("root", "path"), [("~no_such_user/x", "photos"), ("data/raw", "~no_such_user/x")])
def test_a_home_folder_of_nobody_is_one_message(root, path, photos, here, end_of, edit_params, monkeypatch):
    monkeypatch.setenv("BLA_DATA_ROOT", root)
    edit_params(here, {"dataset.photos.images.path": path})
    assert "names no user of this machine; write the whole path" in end_of("prepare", "photos")


@pytest.fixture
def table(tmp_path, save_png):
    """A folder with a table of four images and masks of an ear."""
    for number in range(4):
        save_png(tmp_path / f"{number}.png", np.full((8, 8, 3), number, np.uint8))
        save_png(tmp_path / f"masks/ear/{number}.png", np.eye(8, dtype=np.uint8) * 255)
    rows = ["0.png,train,cat", "1.png,train,dog", "2.png,test,cat", "3.png,test,dog"]
    (tmp_path / "images.csv").write_text("\n".join(["file,split,labels", *rows, ""]))
    return tmp_path


def listed(folder):
    spec = ImageTable(kind="image_table", path="x", labels="one", image_size=32, masks="binary")
    return image_table.find(spec, folder)


def looped(path):
    path.symlink_to(path.name)


@pytest.mark.parametrize("make", [os.mkfifo, socket_at, os.mkdir, looped], ids=["pipe", "socket", "folder", "loop"])
@pytest.mark.parametrize("place", ["images.csv", "masks/ear/2.png"])
def test_something_that_is_no_file_is_refused_in_a_table_too(place, make, table):
    (table / place).unlink()
    make(table / place)
    with pytest.raises(BlaError, match=rf"{place}: .*(not a file|Too many levels)"):
        listed(table)


@pytest.mark.parametrize("other", ["e\u0301", "é\u200b"])
def test_labels_and_masks_of_a_table_that_look_the_same_are_refused(other, table):
    text = (table / "images.csv").read_text()
    (table / "images.csv").write_text(text.replace("cat", "é").replace("dog", other))
    with pytest.raises(BlaError, match=r"images\.csv: two names look the same"):
        listed(table)
    (table / "images.csv").write_text(text)
    for name in ("é", other):
        (table / "masks" / name).mkdir()
    with pytest.raises(BlaError, match="masks: two names look the same"):
        listed(table)


def test_masks_of_a_name_that_is_not_utf_8_are_refused(table):
    (table / "masks/ear").rename(os.fsdecode(os.fsencode(table / "masks") + b"/\xff\xfe"))
    with pytest.raises(BlaError, match="is not UTF-8; rename it"):
        listed(table)


READERS = {
    "labels.txt": read_labels,
    "answers.json": read_answers,
    "weights.pth": read_weights,
    "fitted.safetensors": bla.load_fitted,
    "manifest.json": lambda path: bla.load_record(path.parent),
    "map.npy": load_npy,
    "archive.zip": lambda path: fetch(Source(path.name, (), None, "md5:0"), path.parent),
}


@pytest.mark.parametrize(
    "make", [os.mkfifo, socket_at, lambda path: path.symlink_to("/dev/zero")], ids=["pipe", "socket", "device"]
)
@pytest.mark.parametrize("name", READERS)
def test_no_reader_of_a_users_file_waits_for_something_that_is_no_file(name, make, tmp_path):
    make(tmp_path / name)
    with pytest.raises((BlaError, ValueError), match=r"a pipe, socket or device|not a file|no such file") as caught:
        READERS[name](tmp_path / name)
    assert name == "map.npy" or f"{tmp_path / name}: " in str(caught.value)  # whoever calls load_npy names the file
