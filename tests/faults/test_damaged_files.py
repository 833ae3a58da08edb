"""Messages about damaged and missing files name the remedy; damaged caches are recomputed."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from bla.base.atomic import save_array
from pipeline.artifacts.features import explained_features

IMAGES = Path("data/images/photos")


def test_bad_images_of_both_splits_give_one_message_and_keep_the_earlier_images(photos, end_of, save_png, contents):
    assert end_of("prepare", "photos") is None
    before, good = contents(IMAGES), contents(photos)
    (photos / "train/cat/2.png").write_bytes(b"")
    (photos / "train/dog/0.png").write_bytes(b"a text")
    save_png(photos / "masks/test/cat/0.png", np.zeros((24, 40), np.uint8))
    (photos / "test/dog/0.png").unlink()
    (photos / "test/dog/0.png").mkdir()
    first, *lines = end_of("prepare", "photos").splitlines()
    assert first.startswith("error in prepare photos: params.yaml: dataset.photos.images: 2 of 6 train images ")
    expected = [
        ("data/raw/photos/train/cat/2.png: ", "an empty file"),
        ("data/raw/photos/train/dog/0.png: ", "JPEG, PNG, GIF, BMP"),
        ("2 of 2 test images ", ""),
        ("data/raw/photos/masks/test/cat/0.png: ", "marks no object"),
        ("data/raw/photos/test/dog/0.png: ", "Is a directory"),
    ]
    for line, (start, reason) in zip(lines, expected, strict=True):
        assert line.startswith(start)
        assert reason in line
    assert sum("replace or remove the file" in line for line in lines) == 3
    assert contents(IMAGES) == before
    assert not list(Path(".work").glob("images-*"))
    (photos / "test/dog/0.png").rmdir()
    for name, content in good.items():
        (photos / name).write_bytes(content)
    assert end_of("prepare", "photos") is None
    assert contents(IMAGES) == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "missing"),
    [
        ("lime", "models/heads/painted_birds.safetensors"),
        ("maps", "data/lime/painted_birds.safetensors"),
        ("maps", "models/learned/painted_birds/bla_t.safetensors"),
        ("faithfulness", "data/maps/painted_birds.safetensors"),
    ],
)
def test_a_missing_file_is_named(stage, missing, explained, end_of):
    Path(missing).unlink()
    message = end_of(stage, "painted_birds")
    assert message.startswith(f"error in {stage} painted_birds: ")
    assert missing in message
    assert "run make repro" in message


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "path", "name"),
    [
        ("gallery", "models/heads/painted_birds.safetensors", "head.bias"),
        ("gallery", "models/learned/painted_birds/bla_t.safetensors", "module.bias"),
        ("maps", "data/lime/painted_birds.safetensors", "maps"),
        ("faithfulness", "data/maps/painted_birds.safetensors", "targets"),
    ],
)
def test_a_file_that_lacks_an_array_is_named_with_the_array(stage, path, name, explained, end_of):
    arrays = load_file(path)
    del arrays[name]
    save_file(arrays, path)
    message = end_of(stage, "painted_birds")
    assert message.startswith(f"error in {stage} painted_birds: {path}: has no {name}; ")
    assert "delete it and run" in message


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "earlier"), [("maps", "lime"), ("faithfulness", "maps")])
def test_a_damaged_file_is_named_with_the_stage_that_writes_it(stage, earlier, explained, end_of):
    file = Path(f"data/{earlier}/painted_birds.safetensors")
    file.write_bytes(file.read_bytes()[:1000])
    message = end_of(stage, "painted_birds")
    assert message.startswith(f"error in {stage} painted_birds: {file}: damaged ")
    assert message.endswith(f"delete it and run dvc repro {earlier}@painted_birds")


@pytest.mark.slow
def test_damaged_cached_maps_are_recomputed(explained, end_of, capsys, maps_and_scores):
    before = maps_and_scores()
    (path,) = Path(".work").glob("maps-painted_birds-cam-*")
    whole, stored = path.read_bytes(), load_file(path)
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert end_of("maps", "painted_birds") is None
    assert f"{path}: damaged" in capsys.readouterr().out
    again = load_file(path)
    assert again.keys() == stored.keys()
    for name, values in stored.items():
        if name != "seconds":
            np.testing.assert_array_equal(again[name], values)
    assert maps_and_scores() == before


def test_features_that_are_not_finite_stop_the_stages_that_explain_all_runs(explained, end_of):
    assert end_of("compare_methods") is None  # `agreement` reads which methods did not train
    path = Path("data/features/painted_birds/test_features.npy")
    features = np.load(path)
    features[:, 0, 0] = np.nan
    save_array(path, features)
    for words in (("agreement",), ("faithfulness", "painted_birds")):
        assert "explained images are NaN or infinite: numbers 0, 1" in end_of(*words)


@pytest.mark.parametrize("stage", ["x_features", "errors", "maps painted_birds", "explanation_size"])
def test_features_that_are_not_finite_are_named_with_their_file_and_images(stage, explained, edit_params, end_of):
    if stage == "x_features":  # which reads no features without it
        edit_params(explained, {"learned_explainers": ["xnn"]})
    assert end_of("compare_methods") is None  # `errors` reads which methods did not train
    path = Path("data/features/painted_birds/test_features.npy")
    features = np.load(path)
    features[5, 0, 0], features[9, 1, 1, 3] = np.nan, np.inf
    save_array(path, features)
    message = end_of(*stage.split())
    assert message == (
        f"error in {stage}: {path}: the features of 2 of 40 explained images are NaN or infinite: numbers 5, 9, counted "
        "from 0; their file is damaged: delete it and extract the features again"
    )


def test_explained_features_are_those_of_the_numbers(explained):
    whole = np.load("data/features/painted_birds/test_features.npy").reshape(40, 16, -1)
    np.testing.assert_array_equal(explained_features("painted_birds"), whole)
    np.testing.assert_array_equal(explained_features("painted_birds", [9, 0]), whole[[9, 0]])
