"""Folders of images: files, order, and every kind of wrong folder."""

import shutil
from collections import Counter

import pytest

from bla.base.errors import BlaError
from bla.base.specs import ImageFolder
from bla.datasets import ImageFile, split_by_name
from bla.datasets.image_folder import find

SPEC = ImageFolder(kind="image_folder", path="photos", image_size=32)
SHARED = ImageFolder(kind="image_folder", path="photos", image_size=32, test_share=0.25)


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def names(listing, split):
    return [file.name for file in listing.splits[split]]


@pytest.fixture
def folder(tmp_path):
    """Two classes with three training images and one test image each; the files are empty, because `find` opens none."""
    touch(tmp_path, *(f"train/{name}" for name in ("cat/b.jpg", "cat/a.png", "cat/C.JPG")))
    touch(tmp_path, *(f"train/{name}" for name in ("dog/x.jpeg", "dog/z.PNG", "dog/y.jpg")))
    touch(tmp_path, "test/cat/1.jpg", "test/dog/1.jpg")
    return tmp_path


@pytest.fixture
def shared(tmp_path):
    """Two classes of twenty images each, without a split."""
    touch(tmp_path, *(f"{animal}/{number}.jpg" for animal in ("cat", "dog") for number in range(20)))
    return tmp_path


def test_images_are_listed_in_the_order_of_their_paths(folder):
    listing = find(SPEC, folder)
    own = ["cat/C.JPG", "cat/a.png", "cat/b.jpg", "dog/x.jpeg", "dog/y.jpg", "dog/z.PNG"]
    labels = [0, 0, 0, 1, 1, 1]
    assert listing.folder == folder
    assert listing.splits["train"] == [
        ImageFile(f"train/{name}", label) for name, label in zip(own, labels, strict=True)
    ]
    assert listing.splits["test"] == [ImageFile("test/cat/1.jpg", 0), ImageFile("test/dog/1.jpg", 1)]
    assert listing.masks is None


def test_classes_are_the_sorted_folders(folder):
    touch(folder, "train/Zebra/1.jpg", "test/Zebra/1.jpg", "train/masks/1.jpg", "test/masks/1.jpg")
    listing = find(SPEC, folder)
    assert listing.classes == ["Zebra", "cat", "dog", "masks"]
    assert [file.label for file in listing.splits["test"]] == [0, 1, 2, 3]


def test_links_are_followed(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    shutil.move(folder / "train/cat", elsewhere / "cats")
    (folder / "train/cat").symlink_to(elsewhere / "cats")
    (folder / "train/dog/link.jpg").symlink_to(elsewhere / "cats/b.jpg")
    assert names(find(SPEC, folder), "train")[:4] == [
        "train/cat/C.JPG",
        "train/cat/a.png",
        "train/cat/b.jpg",
        "train/dog/link.jpg",
    ]


@pytest.mark.parametrize(("limit", "train"), [(1, ["C.JPG", "x.jpeg"]), (9, None), (None, None)])
def test_a_limit_on_images_per_class_applies_only_to_training(folder, limit, train):
    touch(folder, "test/cat/2.jpg")
    listing = find(ImageFolder(kind="image_folder", path="photos", image_size=32, train_images_per_class=limit), folder)
    kept = [name.split("/")[-1] for name in names(listing, "train")]
    assert kept == train if train else len(kept) == 6
    assert len(listing.splits["test"]) == 3


def test_hidden_files_are_ignored_and_other_files_are_listed(folder, capsys):
    (folder / "train/.ipynb_checkpoints").mkdir()
    touch(folder / "train/cat", "._a.jpg", ".hidden.png", "Thumbs.db", "notes.txt")
    touch(folder, "train/README")
    listing = find(SPEC, folder)
    assert listing.classes == ["cat", "dog"]
    assert len(listing.splits["train"]) == 6
    (said,) = [line for line in capsys.readouterr().out.splitlines() if "left out" in line]
    assert said.endswith(": Thumbs.db, notes.txt")
    assert ".jpg, .jpeg, .png" in said


@pytest.mark.parametrize(
    ("removed", "named", "remedy"),
    [
        (["train"], "/train: ", "{folder}/{{train,test}}/<class>/*.jpg"),
        (["test"], "/test: ", "{folder}/{{train,test}}/<class>/*.jpg"),
        (["train/cat", "test/cat"], "/train: 1 class folders", "at least two"),
        (["train/cat", "train/dog"], "/train: 0 class folders", "at least two"),
        (["test/cat"], ": train and test", "only one of them has cat"),
    ],
)
def test_a_missing_folder_is_named_with_the_expected_layout(folder, removed, named, remedy):
    for name in removed:
        shutil.rmtree(folder / name)
    with pytest.raises(BlaError) as error:
        find(SPEC, folder)
    assert str(error.value).startswith(f"{folder}{named}")
    assert str(error.value).endswith(remedy.format(folder=folder))


@pytest.mark.parametrize(("spec", "layout"), [(SPEC, "{train,test}/<class>"), (SHARED, "<class>")])
def test_a_missing_dataset_folder_is_an_error(tmp_path, spec, layout):
    with pytest.raises(BlaError) as error:
        find(spec, tmp_path / "photos")
    assert "no such folder" in str(error.value)
    assert str(error.value).endswith(f"{tmp_path}/photos/{layout}/*.jpg")


def test_a_class_folder_without_images_is_an_error(folder):
    (folder / "test/cat/1.jpg").rename(folder / "test/cat/1.gif")
    with pytest.raises(BlaError, match=r"test/cat: no \.jpg, \.jpeg, \.png image"):
        find(SPEC, folder)


def test_a_test_share_splits_by_a_hash_of_the_names(shared):
    listing = find(SHARED, shared)
    ordered = sorted(f"{animal}/{number}.jpg" for animal in ("cat", "dog") for number in range(20))
    expected = split_by_name(ordered, 0.25)
    assert listing.classes == ["cat", "dog"]
    for split in ("train", "test"):
        own = [name for name, part in zip(ordered, expected, strict=True) if part == split]
        assert listing.splits[split] == [ImageFile(name, int(name.startswith("dog"))) for name in own]
    assert len(listing.splits["test"]) == 10


def test_with_a_test_share_a_limit_keeps_the_first_training_images_of_every_class(shared):
    limited = find(
        ImageFolder(kind="image_folder", path="photos", image_size=32, test_share=0.25, train_images_per_class=3),
        shared,
    )
    whole = find(SHARED, shared)
    assert Counter(file.label for file in limited.splits["train"]) == {0: 3, 1: 3}
    assert limited.splits["train"][3:] == [file for file in whole.splits["train"] if file.label == 1][:3]
    assert limited.splits["test"] == whole.splits["test"]


def test_a_class_missing_from_a_split_after_a_test_share_is_an_error(shared):
    touch(shared, "emu/1.jpg")
    with pytest.raises(BlaError, match=r"test_share 0\.25 .*(train|test) split of emu; add"):
        find(SHARED, shared)


@pytest.mark.parametrize("spec", [SPEC, SHARED])
def test_masks_are_found_beside_the_images(spec, tmp_path):
    images = [f"{animal}/{number}.jpg" for animal in ("cat", "dog") for number in range(20)]
    if spec is SPEC:
        images = [f"{split}/{name}" for split in ("train", "test") for name in images]
    touch(tmp_path, *images, *(f"masks/{name.removesuffix('.jpg')}.png" for name in images))
    with_masks = ImageFolder(
        kind="image_folder", path="photos", image_size=32, test_share=spec.test_share, masks="trimap"
    )
    listing = find(with_masks, tmp_path)
    assert listing.masks == "trimap"
    assert listing.classes == ["cat", "dog"]
    found = [file for files in listing.splits.values() for file in files]
    assert sorted(file.name for file in found) == sorted(images)
    assert all(file.masks == (f"masks/{file.name.removesuffix('.jpg')}.png",) for file in found)
    assert {file.masks for files in find(spec, tmp_path).splits.values() for file in files} == {()}


def test_missing_masks_are_counted_and_the_first_is_named(folder):
    touch(folder, "masks/train/cat/a.png", *(f"train/dog/{number:02}.jpg" for number in range(20)))
    with pytest.raises(BlaError) as error:
        find(ImageFolder(kind="image_folder", path="photos", image_size=32, masks="binary"), folder)
    first = ["cat/C", "cat/b", *(f"dog/{number:02}" for number in range(8))]
    named = ", ".join(f"masks/train/{name}.png" for name in first)
    assert str(error.value).startswith(f"{folder}: 27 of 28 masks")
    assert str(error.value).endswith(f": {named}, ...")


@pytest.mark.parametrize("names", [("1.jpg", "1.png"), ("b.JPG", "b.jpeg"), ("x.y.jpeg", "x.y.png")])
def test_two_images_never_share_a_mask(names, tmp_path):
    stem = names[0].rpartition(".")[0]
    touch(tmp_path, "train/cat/a.jpg", "train/dog/a.jpg", "test/dog/a.jpg", *(f"test/cat/{name}" for name in names))
    touch(
        tmp_path, "masks/train/cat/a.png", "masks/train/dog/a.png", "masks/test/dog/a.png", f"masks/test/cat/{stem}.png"
    )
    with pytest.raises(BlaError, match=f"masks/test/cat/{stem}.png would be the mask of two images"):
        find(ImageFolder(kind="image_folder", path="photos", image_size=32, masks="binary"), tmp_path)
    assert find(ImageFolder(kind="image_folder", path="photos", image_size=32), tmp_path).masks is None


def test_only_images_in_use_need_masks(folder):
    touch(folder, *(f"masks/{name}.png" for name in ("train/cat/C", "train/dog/x", "test/cat/1", "test/dog/1")))
    listing = find(
        ImageFolder(kind="image_folder", path="photos", image_size=32, train_images_per_class=1, masks="binary"), folder
    )
    assert [file.masks for file in listing.splits["train"]] == [("masks/train/cat/C.png",), ("masks/train/dog/x.png",)]


@pytest.mark.parametrize("classes", [["gloves", "helmets", "masks"], ["masks", "test"], ["masks", "train"]])
def test_masks_is_a_class_like_any_other_where_there_are_no_masks(classes, tmp_path):
    for name in classes:
        (tmp_path / name).mkdir()
        for number in range(30):
            (tmp_path / name / f"{number}.jpg").touch()
    listing = find(ImageFolder(kind="image_folder", path="p", image_size=32, test_share=0.3), tmp_path)
    assert listing.classes == classes
    with pytest.raises(BlaError):
        find(ImageFolder(kind="image_folder", path="p", image_size=32, test_share=0.3, masks="binary"), tmp_path)


@pytest.mark.parametrize("classes", [["gloves", "helmets", "masks"], ["gloves", "masks"], ["masks", "test"]])
def test_masks_is_a_class_beside_the_masks_of_all_classes(classes, tmp_path):
    """It vanished: its images in `masks`, and theirs in `masks/masks`, were taken for masks alone."""
    for name in classes:
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / "masks" / name).mkdir(parents=True)
        for number in range(30):
            (tmp_path / name / f"{number}.jpg").touch()
            (tmp_path / "masks" / name / f"{number}.png").touch()
    spec = ImageFolder(kind="image_folder", path="p", image_size=32, test_share=0.3, masks="binary")
    listing = find(spec, tmp_path)
    assert listing.classes == classes
    files = [file for files in listing.splits.values() for file in files]
    assert len(files) == 30 * len(classes)
    assert all(file.masks == (f"masks/{file.name.removesuffix('.jpg')}.png",) for file in files)
    (tmp_path / "masks/masks/7.png").unlink()
    with pytest.raises(BlaError, match=r"1 of \d+ masks are missing: masks/masks/7\.png"):
        find(spec, tmp_path)


def test_masks_is_a_class_beside_masks_in_a_folder_with_splits(tmp_path):
    for split in ("train", "test"):
        for name in ("masks", "gloves"):
            (tmp_path / split / name).mkdir(parents=True)
            (tmp_path / split / name / "1.jpg").touch()
            (tmp_path / "masks" / split / name).mkdir(parents=True)
            (tmp_path / "masks" / split / name / "1.png").touch()
    listing = find(ImageFolder(kind="image_folder", path="p", image_size=32, masks="binary"), tmp_path)
    assert listing.classes == ["gloves", "masks"]
