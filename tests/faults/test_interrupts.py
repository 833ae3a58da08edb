"""Ctrl-C: exit code 130, one message, nothing lost; the next run resumes and ends with the same bytes."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bla.datasets import image_files
from bla.datasets.image_files import load_image, load_mask
from bla.explainers.posthoc.lime import LIME
from bla.networks import extraction
from bla.runtime.cache import settle_store
from pipeline.artifacts.arrays import load_array
from pipeline.artifacts.images import IMAGES
from pipeline.run.stage import run_stage

PHOTOS, FEATURES = IMAGES / "photos", Path("data/features/painted_birds")
SIGINT_AS_AN_ARRAY_BEGINS = """
import os, signal
import numpy as np
signal.signal(signal.SIGINT, signal.default_int_handler)
write = np.lib.format.write_array_header_1_0
def strike(file, header):
    write(file, header)
    os.kill(os.getpid(), signal.SIGINT)
np.lib.format.write_array_header_1_0 = strike
"""


@pytest.mark.slow
def test_an_interrupted_process_has_exit_code_130_and_one_message_and_loses_nothing(
    here, end_of, edit_params, process, message_of, contents
):
    assert end_of("prepare", "painted_birds") is None
    before = contents("data")
    edit_params(here, {"dataset.painted_birds.images.train_images": 80})
    done = process(here, "prepare", "painted_birds", before=SIGINT_AS_AN_ARRAY_BEGINS)
    assert message_of(done, code=130) == "error in prepare painted_birds: interrupted; run again to continue"
    assert contents("data") == before


def test_an_interrupt_while_a_stage_is_imported_gives_the_same_message(here, monkeypatch, capsys):
    def load():
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as end:
        run_stage(load, "prepare", ["photos"])
    assert end.value.code == 130
    assert capsys.readouterr().err == "error in prepare photos: interrupted; run again to continue\n"


def test_an_interrupted_temporary_copy_does_not_promise_to_continue(tmp_path, monkeypatch, capsys):
    def load():
        raise KeyboardInterrupt

    (tmp_path / ".dvc/tmp/exps/tmp1").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / ".dvc/tmp/exps/tmp1")
    with pytest.raises(SystemExit) as end:
        run_stage(load, "prepare", ["photos"])
    assert end.value.code == 130
    assert "run again to start again, since --temp keeps nothing" in capsys.readouterr().err


def test_reading_images_resumes_and_ends_with_the_same_bytes(reading, contents):
    assert reading() == ([0, 0], None)
    undisturbed = contents(PHOTOS)
    shutil.rmtree(PHOTOS)
    assert reading(2) == ([0], 130)
    assert not PHOTOS.exists()
    assert reading() == ([4, 0], None)
    assert contents(PHOTOS) == undisturbed


def test_a_bad_image_found_before_an_interrupt_is_still_reported(reading, photos):
    (photos / "train/cat/1.png").write_bytes(b"")
    assert reading(2)[1] == 130
    message = reading()[1]
    assert "1 of 6 train images" in message
    assert "train/cat/1.png: " in message


@pytest.mark.parametrize("changed", ["train/cat/1.png", "masks/train/cat/1.png"])
def test_a_file_replaced_after_an_interrupt_is_read_again(changed, reading, photos, save_png, contents):
    _, message = reading(2)
    assert message == 130
    mirrored = np.asarray(Image.open(photos / changed))[::-1].copy()
    (photos / changed).unlink()
    save_png(photos / changed, mirrored)
    assert reading() == ([0, 0], None)
    after = contents(PHOTOS)
    assert reading() == ([0, 0], None)
    assert contents(PHOTOS) == after
    sources = [line.split(",")[2] for line in (PHOTOS / "manifest.csv").read_text().splitlines()[1:]]
    place, image, mask = sources.index("train/cat/1.png"), photos / "train/cat/1.png", photos / "masks/train/cat/1.png"
    np.testing.assert_array_equal(
        load_array(PHOTOS / "train_images.npy")[place], load_image(image, (32, 32), "bilinear")
    )
    expected = load_mask(mask, (32, 32), "binary", (24, 40))
    np.testing.assert_array_equal(load_array(PHOTOS / "train_masks.npy")[place], expected[None])


def test_extraction_resumes_unless_the_images_have_changed(extracting, contents):
    assert extracting(2) == [0]
    path = IMAGES / "painted_birds/train_images.npy"
    original = path.read_bytes()
    path.write_bytes(original[:-1] + bytes([original[-1] ^ 1]))  # changes a pixel, but not the manifest
    assert extracting() == [0, 0]
    anew = contents(FEATURES)
    assert extracting() == [0, 0]
    assert contents(FEATURES) == anew


@pytest.mark.slow
def test_lime_resumes_and_ends_with_the_same_bytes(explained, maps_and_scores, end_of, monkeypatch):
    before, explain, images_at_once = maps_and_scores(), LIME.explain_runs, []

    def interrupt(self, images, targets, seeds):
        images_at_once.append(len(images))
        if len(images_at_once) == 4:
            raise KeyboardInterrupt
        return explain(self, images, targets, seeds)

    Path("data/lime/painted_birds.safetensors").unlink()
    monkeypatch.setattr(LIME, "explain_runs", interrupt)  # nothing else shows where LIME resumes
    assert end_of("lime", "painted_birds") == 130
    assert not Path("data/lime/painted_birds.safetensors").exists()
    assert end_of("lime", "painted_birds") is None
    assert images_at_once == [4, 1, 4, 1, 4, 1, 2]  # the second chunk again, then the third; one image a chunk twice
    assert maps_and_scores() == before
    assert not list(Path(".work").glob("lime-*"))


def interrupted(*_, **__):
    raise KeyboardInterrupt


def failing(*_, **__):
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(("fault", "end"), [(interrupted, 130), (failing, "No space left on device; free some space")])
@pytest.mark.parametrize(
    ("stage", "module", "work", "left"),
    [  # `left`: the splits whose work had not begun when the first split's arrays were to be moved
        ("features", "pipeline.stages.features", (extraction, "extract"), 0),
        ("prepare", "pipeline.artifacts.prepared", (image_files, "read_images"), 0),
        ("multi_label_features", "pipeline.stages.multi_label_features", (extraction, "extract"), 1),
    ],
)
@pytest.mark.parametrize("moved", [False, True])
def test_a_store_that_is_complete_is_used_after_a_fault_before_the_output(
    moved, stage, module, work, left, fault, end, extractable, photos, end_of, contents, monkeypatch
):
    """The fault comes before the first split's arrays are moved, or before the second split's."""
    dataset = {"features": "painted_birds", "prepare": "photos"}.get(stage, "painted_flock")
    if stage == "multi_label_features":
        assert end_of("multi_label_prepare", dataset) is None
    assert end_of(stage, dataset) is None
    undisturbed = contents("data")
    for path in (*Path("data").rglob("*features.npy"), *Path("data/images/photos").rglob("*.npy")):
        path.unlink()
    begun, compute, settle = [], getattr(*work), settle_store

    def second(store, places):
        if moved and store.name.split("-")[-2] == "train":
            return settle(store, places)
        return fault()

    with monkeypatch.context() as patch:
        patch.setattr(f"{module}.settle_store", second)
        found = end_of(stage, dataset)
        assert found == end or end in str(found)
    monkeypatch.setattr(*work, lambda *values: begun.append(values) or compute(*values))
    assert end_of(stage, dataset) is None
    assert len(begun) == (1 if moved else left)  # what was moved is made again, what lies complete in .work is not
    assert contents("data") == undisturbed


KILLED = """
import os, signal
import pipeline.stages.lime as stage
stage.save_file = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
@pytest.mark.parametrize("fault", [interrupted, failing, "killed"])
def test_lime_maps_that_are_complete_are_used_after_a_fault_before_the_output(
    fault, explained, end_of, process, contents, monkeypatch
):
    undisturbed = contents("data/lime")
    Path("data/lime/painted_birds.safetensors").unlink()
    if fault == "killed":
        assert process(explained, "lime", "painted_birds", before=KILLED).returncode == -9
    else:
        with monkeypatch.context() as patch:
            patch.setattr("pipeline.stages.lime.save_file", fault)
            assert end_of("lime", "painted_birds") is not None
    with monkeypatch.context() as patch:
        patch.setattr(LIME, "explain_runs", interrupted)  # no image is explained again
        assert end_of("lime", "painted_birds") is None
    assert contents("data/lime") == undisturbed
