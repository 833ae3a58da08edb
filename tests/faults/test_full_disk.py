"""A full disk: one message, and existing files are kept."""

import json
from pathlib import Path

import pytest

from pipeline.artifacts.arrays import load_array

PHOTOS, FEATURES = Path("data/images/photos"), Path("data/features/painted_birds")
REMEDY = "free some space"


def test_a_full_disk_keeps_the_earlier_images(here, end_of, edit_params, full_disk, contents):
    assert end_of("prepare", "painted_birds") is None
    before = contents("data")
    edit_params(here, {"dataset.painted_birds.images.train_images": 80})
    with full_disk(100_000):
        message = end_of("prepare", "painted_birds")
    assert message.startswith("error in prepare painted_birds: ")
    assert REMEDY in message
    assert contents("data") == before


def test_a_full_disk_keeps_the_earlier_images_of_a_folder(here, photos, end_of, edit_params, full_disk, contents):
    assert end_of("prepare", "photos") is None
    before = contents(PHOTOS)
    edit_params(here, {"dataset.photos.images.image_size": 64})
    with full_disk(50_000):
        assert REMEDY in end_of("prepare", "photos")
    assert contents(PHOTOS) == before
    assert end_of("prepare", "photos") is None
    assert load_array(PHOTOS / "train_images.npy").shape == (6, 64, 64, 3)


def test_a_full_disk_keeps_the_earlier_heads(here, save_random_features, edit_params, end_of, full_disk, contents):
    save_random_features(here)
    assert end_of("baseline", "painted_birds") is None
    before = contents("models")
    edit_params(here, {"seed": 1})
    with full_disk(20_000):
        message = end_of("baseline", "painted_birds")
    assert message.startswith("error in baseline painted_birds: ")
    assert REMEDY in message
    assert contents("models") == before


def test_extraction_resumes_when_the_disk_has_space_again(extracting, end_of, full_disk, contents):
    extracting()
    before = contents(FEATURES)
    with full_disk(400_000):
        assert REMEDY in end_of("features", "painted_birds")
    assert contents(FEATURES) == before
    (whole_rows,) = [json.loads(path.read_text())["rows"] for path in Path(".work").glob("features-*/done.json")]
    assert whole_rows > 0
    assert extracting() == [whole_rows, 0]
    assert contents(FEATURES) == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "output", "change"),
    [
        ("lime", "lime/painted_birds.safetensors", {"explainer.lime.presence": 0.6}),
        ("maps", "maps/painted_birds.safetensors", {"faithfulness.noise": 0.1}),
        ("faithfulness", "faithfulness/painted_birds/per_image.csv", {"faithfulness.orders": 2}),
    ],
)
@pytest.mark.parametrize("room", ["almost enough", "next to none"])
def test_a_full_disk_keeps_maps_and_scores(
    room, stage, output, change, explained, edit_params, end_of, full_disk, maps_and_scores
):
    before, size = maps_and_scores(), (Path("data") / output).stat().st_size
    edit_params(explained, change)
    with full_disk(size - 200 if room == "almost enough" else 1000):
        message = end_of(stage, "painted_birds")
    assert message.startswith(f"error in {stage} painted_birds: ")
    assert REMEDY in message
    assert maps_and_scores() == before
