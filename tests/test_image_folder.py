"""Folders of images: what is read, in which order, and every way in which a folder can be wrong."""

import numpy as np
import pytest
from PIL import Image

from bla.datasets.image_folder import class_names, image_files, load
from bla.errors import BlaError
from bla.specs import ImageFolder

SPEC = ImageFolder("image_folder", "photos", image_size=32)


def save(path, grey):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 20), (grey, grey, grey)).save(path, {".png": "PNG"}.get(path.suffix.lower(), "JPEG"))


@pytest.fixture
def folder(tmp_path):
    """Two classes of three training images and one test image; the grey level tells them apart."""
    names = ["train/cat/b.jpg", "train/cat/a.png", "train/cat/C.JPG", "train/dog/x.jpeg", "train/dog/z.PNG"]
    for number, name in enumerate([*names, "train/dog/y.jpg", "test/cat/1.jpg", "test/dog/1.jpg"]):
        save(tmp_path / name, 10 + 30 * number)
    return tmp_path


def test_reads_in_the_order_of_the_paths(folder):
    train = load(SPEC, folder, "train")
    names = ["cat/C.JPG", "cat/a.png", "cat/b.jpg", "dog/x.jpeg", "dog/y.jpg", "dog/z.PNG"]
    assert train.sources == [f"train/{name}" for name in names]
    assert train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert train.masks is None
    assert (train.images.shape, train.images.dtype, train.labels.dtype) == ((6, 32, 32, 3), np.uint8, np.int64)
    assert train.images.mean((1, 2, 3)) == pytest.approx([70, 40, 10, 100, 160, 130], abs=1)


def test_classes_are_the_sorted_folders(folder):
    save(folder / "train/Zebra/1.jpg", 0)
    save(folder / "test/Zebra/1.jpg", 0)
    assert class_names(folder) == ["Zebra", "cat", "dog"]
    assert [label for _, label in image_files(folder, "test")] == [0, 1, 2]


@pytest.mark.parametrize(("limit", "train"), [(1, ["C.JPG", "x.jpeg"]), (9, None), (None, None)])
def test_a_limit_on_the_images_of_a_class_applies_to_training_alone(folder, limit, train):
    save(folder / "test/cat/2.jpg", 0)
    spec = ImageFolder("image_folder", "photos", 32, train_images_per_class=limit)
    read = [source.split("/")[-1] for source in load(spec, folder, "train").sources]
    assert read == train if train else len(read) == 6
    assert len(load(spec, folder, "test").sources) == 3


def test_hidden_files_are_ignored_and_other_files_named(folder, capsys):
    (folder / "train/.ipynb_checkpoints").mkdir()
    for name in ("._a.jpg", ".hidden.png", "Thumbs.db", "notes.txt"):
        (folder / "train/cat" / name).write_bytes(b"no image")
    (folder / "train/README").write_text("no class")
    assert class_names(folder) == ["cat", "dog"]
    assert len(load(SPEC, folder, "train").labels) == 6
    (said,) = [line for line in capsys.readouterr().out.splitlines() if "left out" in line]
    assert said.endswith("only .jpg, .jpeg, .png are read: Thumbs.db, notes.txt")


def remove(folder, name):
    for path in sorted((folder / name).rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (folder / name).rmdir()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["train"], "{0}/train: no such folder; images belong in {0}/{{train,test}}/<class>/*.jpg"),
        (["test"], "{0}/test: no such folder; images belong in {0}/{{train,test}}/<class>/*.jpg"),
        (["train/cat", "test/cat"], "{0}/train: 1 class folders; a classifier needs at least two"),
        (["train/cat", "train/dog"], "{0}/train: 0 class folders; a classifier needs at least two"),
        (["test/cat"], "{0}: train and test must have the same class folders; only one of them has cat"),
    ],
)
def test_missing_folders(folder, names, message):
    for name in names:
        remove(folder, name)
    with pytest.raises(BlaError) as error:
        load(SPEC, folder, "train")
    assert str(error.value) == message.format(folder)


def test_the_whole_folder_is_missing(tmp_path):
    with pytest.raises(BlaError, match="no such folder"):
        load(SPEC, tmp_path / "photos", "train")


def test_a_class_folder_without_images(folder):
    (folder / "test/cat/1.jpg").rename(folder / "test/cat/1.gif")
    with pytest.raises(BlaError, match=r"test/cat: no \.jpg, \.jpeg, \.png image in this class folder$"):
        load(SPEC, folder, "test")


def test_every_bad_file_is_named_and_none_is_skipped(folder):
    whole = (folder / "train/cat/b.jpg").read_bytes()
    bad = {"cat/b.jpg": whole[:400], "cat/empty.jpg": b"", "dog/text.jpg": b"a text\n" * 99, "dog/a.png": whole[:9]}
    for name, content in bad.items():
        (folder / "train" / name).write_bytes(content)
    (folder / "train/dog/folder.jpg").mkdir()
    with pytest.raises(BlaError) as error:
        load(SPEC, folder, "train")
    lines = str(error.value).splitlines()
    assert [line.split(": not a readable image (")[0] for line in lines] == [
        str(folder / "train" / name) for name in sorted([*bad, "dog/folder.jpg"])
    ]
    assert all(line.endswith("; replace or remove the file") for line in lines)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_every_decompression_bomb_is_named_whichever_thread_reads_it(folder, monkeypatch):
    for number in range(40):
        save(folder / f"train/cat/{number}.png", 0)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 700)  # Pillow itself refuses twice as many: 1,400 of 800
    with pytest.raises(BlaError) as error:
        load(SPEC, folder, "train")
    assert len(str(error.value).splitlines()) == 46
