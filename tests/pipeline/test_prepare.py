"""The stage `prepare`: images of any kind become arrays, a manifest, masks and boxes."""

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from bla.datasets import ImageFile, Listing, image_folder
from bla.datasets.image_files import load_image, load_mask
from pipeline.artifacts.arrays import load_array
from pipeline.artifacts.images import mask_names

TRAINING = [f"train/{animal}/{number}.png" for animal in ("cat", "dog") for number in range(3)]
SOURCES = {
    "train": sorted(TRAINING, key=lambda name: hashlib.sha256(name.encode()).digest()),
    "test": ["test/cat/0.png", "test/dog/0.png"],
}
OUTPUT = Path("data/images/photos")


def test_a_folder_of_images_becomes_arrays_and_a_manifest(photos, end_of, capsys):
    assert end_of("prepare", "photos") is None
    printed = ["photos: 6 train images of 2 classes; 1 grey", "photos: 2 test images of 2 classes"]
    assert capsys.readouterr().out.splitlines() == printed
    for split, names in SOURCES.items():
        images = [load_image(photos / name, 32, "bilinear") for name in names]
        masks = [load_mask(photos / "masks" / name, 32, "binary", (24, 40)) for name in names]
        np.testing.assert_array_equal(load_array(OUTPUT / f"{split}_images.npy"), images)
        np.testing.assert_array_equal(load_array(OUTPUT / f"{split}_masks.npy")[:, 0], masks)
        labels = load_array(OUTPUT / f"{split}_labels.npy")
        assert (labels.dtype, labels.tolist()) == (np.int64, [int("/dog/" in name) for name in names])
    sources = [name for names in SOURCES.values() for name in names]
    hashes = [hashlib.sha256((photos / name).read_bytes()).hexdigest() for name in sources]
    expected = {
        "split": ["train"] * 6 + ["test"] * 2,
        "label": ["/dog/" in name for name in sources],
        "source": sources,
    }
    expected |= {
        "sha256": hashes,
        "pixels_sha256": [
            hashlib.sha256(load_image(photos / name, 32, "bilinear").tobytes()).hexdigest() for name in sources
        ],
        "treatment": ["grey" if name == "train/cat/0.png" else "" for name in sources],
        "in_both_splits": [False] * 8,
    }
    manifest = pd.read_csv(OUTPUT / "manifest.csv", keep_default_na=False)
    assert manifest.columns.tolist() == [*expected]
    assert manifest.to_dict("list") == expected
    assert (OUTPUT / "classes.csv").read_text() == "label,name\n0,cat\n1,dog\n"
    assert (OUTPUT / "masks.csv").read_text() == "mask,name\n0,object\n"
    tables = ["classes.csv", "manifest.csv", "masks.csv"]
    assert sorted(path.name for path in OUTPUT.iterdir() if path.suffix == ".csv") == tables
    assert not list(Path(".work").glob("images-*"))


def test_masks_of_an_earlier_dataset_with_the_same_name_are_removed(photos, here, end_of, edit_params, contents):
    assert end_of("prepare", "photos") is None
    before = contents(OUTPUT)
    edit_params(here, {"dataset.photos.images.masks": None})
    assert end_of("prepare", "photos") is None
    assert contents(OUTPUT) == {name: content for name, content in before.items() if "masks" not in name}


def test_generated_images_do_not_keep_masks_of_an_earlier_dataset(photos, here, end_of, edit_params):
    assert end_of("prepare", "photos") is None
    birds = {"kind": "painted_birds", "differ_in": "wing", "train_images": 4, "test_images": 2, "image_size": 32} | {
        "bird_size": [0.4, 0.6], "leaves": 0, "loose_parts": 0, "noise": 0,
    }  # fmt: skip
    (OUTPUT / "boxes.csv").write_text("of an earlier dataset\n")
    edit_params(here, {"dataset.photos.images": birds})
    assert end_of("prepare", "photos") is None
    masks = load_array(OUTPUT / "train_masks.npy")
    assert masks.shape == (4, 6, 32, 32)
    assert mask_names("photos") == ["tail", "legs", "body", "head", "beak", "wing"]
    assert not (OUTPUT / "boxes.csv").exists()


def test_boxes_are_in_pixels_of_the_resized_images(photos, end_of, monkeypatch):
    files = {"train": [ImageFile("train/cat/0.png", 0), ImageFile("train/dog/0.png", 1, boxes=((10, 6, 30, 24),))]}
    files["test"] = [ImageFile("test/cat/0.png", 0, boxes=((0, 0, 40, 24), (5, 3, 10, 12)))]
    with monkeypatch.context() as patch:  # a folder of one's own has no boxes
        patch.setattr(image_folder, "find", lambda *_: Listing(photos, ["cat", "dog"], files))
        assert end_of("prepare", "photos") is None
    lines = ["split,image,left,top,right,bottom", "train,0,8,8,24,32", "test,0,0,0,32,32", "test,0,4,4,8,16"]
    assert (OUTPUT / "boxes.csv").read_text().splitlines() == lines
    assert end_of("prepare", "photos") is None
    assert not (OUTPUT / "boxes.csv").exists()


def test_validation_images_stand_for_the_test_images_which_are_not_opened(photos, here, end_of, edit_params):
    for path in photos.glob("test/*/*.png"):
        path.write_bytes(b"not an image")
    edit_params(here, {"dataset.photos.images.validation_images": 2})
    assert end_of("prepare", "photos") is None
    manifest = pd.read_csv(OUTPUT / "manifest.csv")
    assert manifest.loc[manifest["split"] == "test", "source"].tolist() == SOURCES["train"][:2]
    assert manifest.loc[manifest["split"] == "train", "source"].tolist() == SOURCES["train"][2:]


def test_rows_of_a_table_for_testing_are_not_opened_either(photos, here, end_of, edit_params):
    rows = [f"{name},{name.split('/')[1]},{split}" for split, names in SOURCES.items() for name in names]
    (photos / "images.csv").write_text("\n".join(["file,labels,split", *rows]))
    table = {"kind": "image_table", "path": "photos", "image_size": 32, "labels": "one", "validation_images": 2}
    for path in photos.glob("test/*/*.png"):
        path.write_bytes(b"not an image")
    edit_params(here, {"dataset.photos.images": table})
    assert end_of("prepare", "photos") is None
    manifest = pd.read_csv(OUTPUT / "manifest.csv")
    assert sorted(manifest["source"]) == sorted(TRAINING)
    assert (manifest["split"] == "test").sum() == 2


def test_more_validation_images_than_training_images_are_refused(photos, here, end_of, edit_params):
    edit_params(here, {"dataset.photos.images.validation_images": 6})
    assert "dataset.photos.images: validation_images: 6 of 6 training images leave none" in end_of("prepare", "photos")


def test_validation_birds_are_painted_for_themselves(here, end_of, edit_params):
    hashes = {}
    for count in (None, 24):
        edit_params(here, {"dataset.painted_birds.images.validation_images": count})
        assert end_of("prepare", "painted_birds") is None
        manifest = pd.read_csv("data/images/painted_birds/manifest.csv")
        hashes[count] = [set(manifest.loc[manifest["split"] == split, "sha256"]) for split in ("train", "test")]
    (train, test), (same, validation) = hashes.values()
    assert same == train
    assert len(validation) == 24
    assert not validation & (train | test)


def _copied(source, target):
    target.write_bytes(source.read_bytes())


def _compressed_otherwise(source, target):
    Image.open(source).save(target, compress_level=0)


def _with_a_comment(source, target):
    text = PngInfo()
    text.add_text("Comment", "saved again")
    Image.open(source).save(target, pnginfo=text)


def _with_an_opaque_alpha(source, target):
    Image.open(source).convert("RGBA").save(target)


def _in_another_format(source, target):
    Image.open(source).save(target, "BMP")


def _with_a_changed_corner(source, target):
    pixels = np.array(Image.open(source))
    pixels[:4, :4] ^= 128
    Image.fromarray(pixels).save(target)


@pytest.mark.parametrize("again", [_copied, _compressed_otherwise, _with_a_comment, _with_an_opaque_alpha, _in_another_format])  # fmt: skip
def test_a_photograph_in_both_splits_is_counted_and_marked(again, photos, here, end_of, capsys):
    for name in ("test/cat/0.png", "test/dog/0.png"):
        again(photos / "train/dog/1.png", photos / name)
    assert end_of("prepare", "photos") is None
    assert "photos: 1 photograph is in both splits" in capsys.readouterr().out
    manifest = pd.read_csv(OUTPUT / "manifest.csv")
    assert manifest.loc[manifest["in_both_splits"], "source"].tolist() == ["train/dog/1.png", *SOURCES["test"]]


def test_a_photograph_that_was_changed_is_another_one(photos, here, end_of):
    _with_a_changed_corner(photos / "train/dog/1.png", photos / "test/cat/0.png")
    assert end_of("prepare", "photos") is None
    assert not pd.read_csv(OUTPUT / "manifest.csv")["in_both_splits"].any()
