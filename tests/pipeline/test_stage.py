"""Stages as a user meets them: exit codes, one message, and results that survive whatever interrupts."""

import contextlib
import hashlib
import io
import itertools
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import threading
from collections import namedtuple
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from conftest import end_of
from PIL import Image
from safetensors.torch import load_file, save_file

from bla.base.download import Source
from bla.base.errors import BlaError
from bla.base.specs import Backbone
from bla.datasets import ImageFile, Listing
from bla.datasets import image_files as imagefiles
from bla.datasets.image_files import load_image, load_mask
from bla.method import streaming, training
from bla.networks.backbones import build_backbone
from pipeline.artifacts.files import (
    fill_store,
    load_array,
    load_tensor,
    replacing,
    resume_store,
    save_array,
    save_table,
    save_text,
    settle_store,
)
from pipeline.run import estimate as plan
from pipeline.run.stage import data_path
from pipeline.stages import backbone, baseline, features, prepare
from pipeline.stages import train_variant as explainer

ROOT = Path(__file__).resolve().parent.parent
NOT_FOUND = "No such file or directory; mend that and run again"
LAYOUT = "images belong in data/raw/photos/{train,test}/<class>/*.jpg"
NO_SPACE = "File too large; free some space and run again"


@pytest.fixture
def project(tmp_path):
    """The repository with few and small images, where nothing has run yet."""
    for name in ("pipeline", "src", "reports/notebooks"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).symlink_to(ROOT / name)
    shrink(tmp_path, train_images=40, test_images=20)
    return tmp_path


def shrink(project, **images):
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    images |= {"image_size": 32, "digit_size": 16, "fragments": 1, "fragment_size": 8}
    for name in ("cluttered_digits", "cluttered_3_vs_8"):
        params["dataset"][name]["images"] |= images
        params["dataset"][name]["training"]["epochs"] = 1
    (project / "params.yaml").write_text(yaml.safe_dump(params | {"runs": 2}))


def edit(project, dataset, section, **changes):
    """Change settings of one section of a dataset's entry."""
    params = yaml.safe_load((project / "params.yaml").read_text())
    params["dataset"][dataset][section] |= changes
    (project / "params.yaml").write_text(yaml.safe_dump(params))


@pytest.fixture
def here(project, monkeypatch):
    """The project as the working directory: for stages that run in this process, which is faster."""
    monkeypatch.chdir(project)
    monkeypatch.delenv("BLA_DATA_ROOT", raising=False)
    monkeypatch.setenv("BLA_DEVICE", "cpu")
    return project


def run(project, *words, code=None, limit=None, **environment):
    """Run `python -m pipeline.STAGE WORDS`, or `code` in its place; `limit` is the largest file it may write."""
    stage, *arguments = words
    start = ["-c", f"import sys; sys.argv[0] = '{stage}'\n{code}"] if code else ["-m", f"pipeline.{stage}"]
    return subprocess.run(
        [sys.executable, *start, *arguments],
        cwd=project,
        env={k: v for k, v in os.environ.items() if not k.startswith("BLA_")} | {"BLA_DEVICE": "cpu"} | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        preexec_fn=limit and (lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))),
    )


def assert_one_message(done, message, code=1):
    """The stage ended with this exit code and, on stderr, with this message and nothing else."""
    assert (done.returncode, done.stderr.strip()) == (code, f"error in {message}")


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def save_features(project, value=1.0):
    rng = np.random.default_rng(0)
    for split, count in (("train", 40), ("test", 20)):
        features = (rng.random((*([1] if split == "train" else []), count, 4, 2000)) * value).astype(np.float16)
        save_array(project / f"data/features/cluttered_digits/{split}_features.npy", features)
        save_array(project / f"data/features/cluttered_digits/{split}_labels.npy", np.arange(count) % 10)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["prepare"], "prepare: usage: python -m pipeline.stages.prepare DATASET"),
        (["prepare", "a", "b"], "prepare a b: usage: python -m pipeline.stages.prepare DATASET"),
        (["explainer", "photos"], "explainer photos: usage: python -m pipeline.stages.train_variant DATASET VARIANT"),
        (["settings", "x"], "settings x: usage: python -m pipeline.run.settings"),
        (["prepare", "photo"], "prepare photo: params.yaml: there is no photo (did you mean photos?)"),
        (["explainer", "photos", "bl"], "explainer photos bl: params.yaml: there is no bl (did you mean bla?)"),
        (
            ["prepare", "photos"],
            f"prepare photos: params.yaml: dataset.photos.images: data/raw/photos/train: no such folder; {LAYOUT}",
        ),
        (["baseline", "photos"], f"baseline photos: data/features/photos/train_features.npy: {NOT_FOUND}"),
        (
            ["backbone", "photos"],
            "backbone photos: params.yaml: dataset.photos.backbone: weights: data/raw/tf_efficientnetv2_b0.safetensors: "
            "no such file; name a .safetensors file (a relative path starts at $BLA_DATA_ROOT), weights that can be "
            "downloaded (timm/tf_efficientnet_b0.aa_in1k), or pretrained_on_digits",
        ),
    ],
)
def test_a_mistake_of_the_user_is_one_message(words, message, project):
    assert_one_message(run(project, *words), message)
    assert not (project / "data").exists()


@pytest.mark.parametrize("stage", ["settings", "prepare cluttered_digits"])
def test_a_wrong_setting_stops_every_stage(stage, project):
    text = (project / "params.yaml").read_text()
    (project / "params.yaml").write_text(text.replace("runs: 2", "runs: 1\nrunz: 1"))
    first = f"error in {stage}: params.yaml: runs: input should be greater than or equal to 2, not 1"
    second = "params.yaml: runz: unknown setting (did you mean runs?)"
    done = run(project, *stage.split())
    assert (done.returncode, done.stderr.splitlines()) == (1, [first, second])


def test_the_data_root_is_an_environment_variable(monkeypatch):
    monkeypatch.setenv("BLA_DATA_ROOT", "~/elsewhere")
    assert data_path("photos") == Path.home() / "elsewhere" / "photos"
    assert data_path("/photos") == Path("/photos")
    monkeypatch.delenv("BLA_DATA_ROOT")
    assert data_path("photos") == Path("data/raw/photos")


NO_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("tpu", "must be auto, cpu or cuda, not tpu"),
        pytest.param("cuda", "cuda is asked for, but PyTorch finds no GPU; set it to auto or cpu", marks=NO_GPU),
    ],
)
def test_a_device_that_is_not_there(device, message, project):
    save_features(project)
    done = run(project, "baseline", "cluttered_digits", BLA_DEVICE=device)
    assert_one_message(done, f"baseline cluttered_digits: BLA_DEVICE: {message}")


def test_features_that_are_not_finite_stop_the_training(project):
    save_features(project, value=np.nan)
    done = run(project, "baseline", "cluttered_digits")
    message = "params.yaml: dataset.cluttered_digits: bl: the training loss is not finite in epoch 1; "
    message += "lower training.learning_rate"
    assert_one_message(done, f"baseline cluttered_digits: {message}")
    assert not (project / "models").exists()


def test_stages_train_on_features_of_which_some_are_in_memory(here, monkeypatch):
    """The stages stream where `images_in_memory` says so, and nowhere else."""
    save_features(here)
    largest, found = [], {}
    pools = streaming.pools

    def watched(*arguments):
        for pool in pools(*arguments):
            largest.append(len(pool.labels))
            yield pool

    monkeypatch.setattr(training, "pools", watched)
    for limit in (None, 8):
        edit(here, "cluttered_digits", "training", images_in_memory=limit, batch_size=4)
        largest.clear()
        baseline.main("cluttered_digits")
        explainer.main("cluttered_digits", "bla_t")
        assert set(largest) == {limit // 2 if limit else 40}  # while one pool is used, the next is read
        found[limit] = pd.concat(pd.read_csv(f"data/evaluation/cluttered_digits/{v}.csv") for v in ("bl", "bla_t"))
    assert found[8]["run"].tolist() == found[None]["run"].tolist() == [0, 1, 0, 1]
    assert found[8]["loss"].tolist() != found[None]["loss"].tolist()  # another shuffle


@pytest.fixture
def prepared(here):
    """The project after a stage has run, and what is to become of it: new settings, new images."""
    prepare.main("cluttered_digits")
    shrink(here, train_images=80, test_images=20)
    return here


def test_a_full_disk_leaves_the_earlier_images(prepared):
    before = contents(prepared / "data")
    done = run(prepared, "prepare", "cluttered_digits", limit=100_000)
    assert_one_message(done, f"prepare cluttered_digits: {NO_SPACE}")
    assert contents(prepared / "data") == before


def test_a_full_disk_leaves_the_earlier_heads(project):
    save_features(project)
    save_text(project / "models/heads/cluttered_digits.safetensors", "earlier")
    done = run(project, "baseline", "cluttered_digits", limit=20_000)
    assert_one_message(
        done,
        "baseline cluttered_digits: a .safetensors file cannot be read or written (Error while serializing: I/O error: "
        "File too large (os error 27)); free some space, or delete a damaged file, and run again",
    )
    assert contents(project / "models") == {Path("heads/cluttered_digits.safetensors"): b"earlier"}


SIGNAL = """
import os, signal
import numpy as np
from pipeline.stages.prepare import main
from pipeline.run.stage import run_stage
signal.signal(signal.SIGINT, signal.default_int_handler)
write, arrays = np.lib.format.write_array_header_1_0, []
def strike(file, header):  # as the {array} array begins
    arrays.append(write(file, header))
    if len(arrays) == {array}:
        file.flush()
        os.kill(os.getpid(), signal.{name})
np.lib.format.write_array_header_1_0 = strike
run_stage(main)
"""


def test_an_interrupt_leaves_the_earlier_images(prepared):
    before = contents(prepared / "data")
    done = run(prepared, "prepare", "cluttered_digits", code=SIGNAL.format(array=1, name="SIGINT"))
    assert_one_message(done, "prepare cluttered_digits: interrupted; run again to continue", code=130)
    assert contents(prepared / "data") == before


def test_a_stage_that_was_killed_runs_again_to_the_same_bytes(prepared):
    done = run(prepared, "prepare", "cluttered_digits", code=SIGNAL.format(array=4, name="SIGKILL"))
    assert (done.returncode, len(list(prepared.rglob("*.part")))) == (-9, 1)
    assert run(prepared, "prepare", "cluttered_digits").returncode == 0
    again = contents(prepared / "data")
    (prepared / "data").rename(prepared / "old")
    prepare.main("cluttered_digits")
    assert contents(prepared / "data") == again


@pytest.mark.parametrize("error", [None, OSError, KeyboardInterrupt])
def test_a_file_is_replaced_when_it_is_complete_and_never_otherwise(error, tmp_path):
    path = tmp_path / "new" / "a.txt"
    save_text(path, "old")
    with pytest.raises(error) if error else contextlib.nullcontext(), replacing(path) as part:
        part.write_text("new")
        assert path.read_text() == "old"
        if error:
            raise error
    assert contents(tmp_path) == {Path("new/a.txt"): b"old" if error else b"new"}


@pytest.mark.parametrize("dtype", ["uint8", "bool", "int64", "float16", ">f4"])
@pytest.mark.parametrize("shape", [(7, 3, 2), (7,), (0, 4)])
def test_arrays_are_the_bytes_of_np_save(shape, dtype, tmp_path):
    array = np.random.default_rng(0).integers(0, 2, shape).astype(dtype)
    np.save(tmp_path / "wanted.npy", array)
    save_array(tmp_path / "whole.npy", array)
    assert len(set(contents(tmp_path).values())) == 1


def test_a_loaded_array_cannot_be_changed_and_a_tensor_of_it_comes_without_a_warning(tmp_path, recwarn):
    save_array(tmp_path / "a.npy", np.zeros(3))
    with pytest.raises(ValueError, match="read-only"):
        load_array(tmp_path / "a.npy")[:] = 1
    assert load_tensor(tmp_path / "a.npy").tolist() == [0, 0, 0]
    assert not recwarn


def test_an_array_larger_than_memory_can_be_loaded(tmp_path):
    """ImageNet's features are 161 GB: a hole in a file takes no room, and its map needs no memory."""
    path, images = tmp_path / "b.npy", 1_281_167
    with path.open("wb") as file:
        header = {"descr": "<f2", "fortran_order": False, "shape": (images, 49, 1280)}
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + images * 49 * 1280 * 2)
    assert not load_tensor(path)[-1].any()


@pytest.mark.parametrize("content", [b"", b"no array", b"\x93NUMPY", 200])
def test_a_damaged_array_is_named(content, tmp_path):
    save_array(tmp_path / "a.npy", np.zeros(100))
    whole = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(whole[:content] if isinstance(content, int) else content)
    with pytest.raises(BlaError, match=r"a\.npy: damaged \(.*\); delete it and run make repro$"):
        load_array(tmp_path / "a.npy")


def test_tables_keep_six_digits(tmp_path):
    table = pd.DataFrame({"x": [1234.5678, 1e-5 + 1e-16, 1 / 3, None], "n": range(4), "s": ["a", "b,c", "ä", ""]})
    save_table(tmp_path / "a.csv", table)
    assert (tmp_path / "a.csv").read_bytes().decode() == 'x,n,s\n1234.57,0,a\n1e-05,1,"b,c"\n0.333333,2,ä\n,3,\n'


RNG = np.random.default_rng(0)


def test_a_store_is_found_again_and_one_that_cannot_be_gone_on_with_is_removed(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.artifacts.files.WORK", tmp_path)
    for path in (first := resume_store("features-a-train", [1])), resume_store("features-a-test", [1]):
        path.mkdir()
    assert resume_store("features-a-train", [1]) == first
    assert first.exists()
    second = resume_store("features-a-train", [2])
    assert second != first
    assert [path.name for path in tmp_path.iterdir()] == [resume_store("features-a-test", [1]).name]


GROWING = {  # what fill_store writes together: eight rows, the first array as two draws of four
    "features": RNG.random((2, 4, 3, 5)).astype(np.float16),
    "images": RNG.integers(0, 256, (8, 3, 2), dtype=np.uint8),
    "masks": RNG.integers(0, 2, (8, 3)).astype(bool),
    "labels": np.arange(8).astype(">i4"),
}


class Filling:
    """`fill_store` with the arrays of GROWING, three rows a chunk; remembers where each call started."""

    def __init__(self, folder):
        self.folder, self.starts = folder, []

    def __call__(self, die_at=None):
        """The list of what is known of the rows; with `die_at` a kill before that row is ready."""

        def chunks(start):
            self.starts.append(start)
            for first in range(start, 8, 3):
                if die_at is not None and first >= die_at:
                    raise KeyboardInterrupt
                rows = slice(first, first + 3)
                parts = [array.reshape(8, -1)[rows] for array in GROWING.values()]
                yield parts, [[number, f"row {number}"] for number in range(8)[rows]]

        arrays = {name: (array.shape, array.dtype) for name, array in GROWING.items()}
        return fill_store(self.folder / "store", arrays, 8, chunks)

    def settled(self):
        """The bytes of the arrays once they are in their places."""
        settle_store(self.folder / "store", {name: self.folder / f"new/{name}.npy" for name in GROWING})
        return contents(self.folder)


@pytest.fixture
def filling(tmp_path):
    return Filling(tmp_path)


def saved(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


WHOLE = {Path(f"new/{name}.npy"): saved(array) for name, array in GROWING.items()}
KNOWN = [[number, f"row {number}"] for number in range(8)]


def test_a_store_is_the_bytes_of_np_save(filling):
    assert filling() == KNOWN
    assert filling.settled() == WHOLE


HALF_WRITTEN = ["features.npy", "images.npy", "labels.npy", "known.jsonl"]


@pytest.mark.parametrize("damaged", [[], *([name] for name in HALF_WRITTEN), HALF_WRITTEN])
@pytest.mark.parametrize(("die_at", "start"), [(0, 0), (3, 3), (6, 6), (7, 8)])
def test_a_store_goes_on_after_its_last_whole_chunk(die_at, start, damaged, filling):
    with pytest.raises(KeyboardInterrupt) if die_at < 7 else contextlib.nullcontext():
        filling(die_at=die_at)
    for name in damaged:  # the chunk that was being written
        with (filling.folder / "store" / name).open("ab") as file:
            file.write(b"[[99, half")
    assert filling() == KNOWN
    assert filling.starts == [0, start]
    assert filling.settled() == WHOLE


def test_a_store_may_be_interrupted_again_and_again(filling):
    for die_at in (0, 3, 3, 6):
        with pytest.raises(KeyboardInterrupt):
            filling(die_at)
    assert filling() == KNOWN
    assert filling.starts == [0, 0, 3, 3, 6]
    assert filling.settled() == WHOLE


@pytest.mark.parametrize("vanished", [*GROWING, "done"])
@pytest.mark.parametrize("killed_again", [False, True])
def test_a_store_that_lacks_a_file_starts_anew(killed_again, vanished, filling):
    filling()
    (filling.folder / "store" / f"{vanished}.{'json' if vanished == 'done' else 'npy'}").unlink()
    if killed_again:
        with pytest.raises(KeyboardInterrupt):
            filling(die_at=0)
    assert filling() == KNOWN
    assert filling.starts == [0] * (3 if killed_again else 2)
    assert filling.settled() == WHOLE


def test_what_leaves_a_store_replaces_what_was_there(filling):
    filling()
    save_text(filling.folder / "new/images.npy", "earlier")
    assert filling.settled() == WHOLE
    assert not (filling.folder / "store").exists()


def test_a_wrong_number_of_rows_does_not_leave_the_store(tmp_path):
    with pytest.raises(AssertionError, match="2 rows written, 3 announced"):
        fill_store(tmp_path / "store", {"a": ((3,), float)}, 3, lambda _: [([np.zeros(2)], [])])


def save_png(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, "PNG")


@pytest.fixture
def photos(here):
    """The folder of a dataset of six training images, the first of them grey, and two test images, all with masks."""
    edit(here, "photos", "images", image_size=32, masks="binary")
    folder, rng = here / "data/raw/photos", np.random.default_rng(0)
    for split, animal, number in [*itertools.product(["train"], ["cat", "dog"], "012"), *ONE_EACH]:
        name = f"{split}/{animal}/{number}.png"
        pixels = rng.integers(0, 256, (24, 40, 3), dtype=np.uint8)
        save_png(folder / name, pixels[..., 0] if name == "train/cat/0.png" else pixels)
        save_png(folder / "masks" / name, np.uint8(255) * (pixels[..., 0] > 200))
    return folder


ONE_EACH = [("test", "cat", "0"), ("test", "dog", "0")]
TRAINING = [f"train/{animal}/{number}.png" for animal in ("cat", "dog") for number in range(3)]
SOURCES = {
    "train": sorted(TRAINING, key=lambda name: hashlib.sha256(name.encode()).digest()),
    "test": ["test/cat/0.png", "test/dog/0.png"],
}
OUTPUT = Path("data/images/photos")


def test_a_folder_of_images_becomes_arrays_and_a_manifest(photos, capsys):
    prepare.main("photos")
    told = ["photos: 6 train images of 2 classes; 1 grey", "photos: 2 test images of 2 classes"]
    assert capsys.readouterr().out.splitlines() == told
    for split, names in SOURCES.items():
        images = [load_image(photos / name, 32, "bilinear") for name in names]
        masks = [load_mask(photos / "masks" / name, 32, "binary", (24, 40)) for name in names]
        np.testing.assert_array_equal(load_array(OUTPUT / f"{split}_images.npy"), images)
        np.testing.assert_array_equal(load_array(OUTPUT / f"{split}_masks.npy"), masks)
        labels = load_array(OUTPUT / f"{split}_labels.npy")
        assert (labels.dtype, labels.tolist()) == (np.int64, [int("/dog/" in name) for name in names])
    sources = [name for names in SOURCES.values() for name in names]
    hashes = [hashlib.sha256((photos / name).read_bytes()).hexdigest() for name in sources]
    wanted = {"split": ["train"] * 6 + ["test"] * 2, "label": ["/dog/" in name for name in sources], "source": sources}
    wanted |= {"sha256": hashes, "treatment": ["grey" if name == "train/cat/0.png" else "" for name in sources]}
    manifest = pd.read_csv(OUTPUT / "manifest.csv", keep_default_na=False)
    assert manifest.columns.tolist() == [*wanted]
    assert manifest.to_dict("list") == wanted
    assert (OUTPUT / "classes.csv").read_text() == "label,name\n0,cat\n1,dog\n"
    assert sorted(path.name for path in OUTPUT.iterdir() if path.suffix == ".csv") == ["classes.csv", "manifest.csv"]
    assert not list(Path(".work").glob("images-*"))


def test_masks_of_an_earlier_dataset_of_this_name_are_removed(photos):
    prepare.main("photos")
    before = contents(OUTPUT)
    edit(Path(), "photos", "images", masks=None)
    prepare.main("photos")
    assert contents(OUTPUT) == {path: content for path, content in before.items() if "masks" not in path.name}


def test_boxes_are_written_in_pixels_of_the_new_images(photos, monkeypatch):
    found = {"train": [ImageFile("train/cat/0.png", 0), ImageFile("train/dog/0.png", 1, None, ((10, 6, 30, 24),))]}
    found["test"] = [ImageFile("test/cat/0.png", 0, None, ((0, 0, 40, 24), (5, 3, 10, 12)))]
    with monkeypatch.context() as patch:
        patch.setattr(prepare, "find", lambda _: Listing(photos, ["cat", "dog"], found))
        prepare.main("photos")
    lines = ["split,image,left,top,right,bottom", "train,0,8,8,24,32", "test,0,0,0,32,32", "test,0,4,4,8,16"]
    assert (OUTPUT / "boxes.csv").read_text().splitlines() == lines
    prepare.main("photos")
    assert not (OUTPUT / "boxes.csv").exists()


def test_bad_images_of_both_splits_are_one_message_and_leave_the_earlier_images(photos):
    prepare.main("photos")
    before, good = contents(OUTPUT), contents(photos)
    (photos / "train/cat/2.png").write_bytes(b"")
    (photos / "train/dog/0.png").write_bytes(b"a text")
    save_png(photos / "masks/test/cat/0.png", np.zeros((24, 40), np.uint8))
    (photos / "test/dog/0.png").unlink()
    (photos / "test/dog/0.png").mkdir()
    no_image = "not a readable image (no JPEG, PNG, GIF, BMP); replace or remove the file"
    message = f"""prepare photos: params.yaml: dataset.photos.images: 2 of 6 train images cannot be used:
data/raw/photos/train/cat/2.png: not a readable image (an empty file); replace or remove the file
data/raw/photos/train/dog/0.png: {no_image}
2 of 2 test images cannot be used:
data/raw/photos/masks/test/cat/0.png: the mask marks no object
data/raw/photos/test/dog/0.png: not a readable image ([Errno 21] Is a directory: 'data/raw/photos/test/dog/0.png'); \
replace or remove the file"""
    assert_one_message(run(Path(), "prepare", "photos"), message)
    assert contents(OUTPUT) == before
    assert not list(Path(".work").glob("images-*"))
    (photos / "test/dog/0.png").rmdir()
    for name, content in good.items():
        (photos / name).write_bytes(content)
    prepare.main("photos")
    assert contents(OUTPUT) == before


def test_a_full_disk_leaves_the_earlier_images_of_a_folder(photos):
    prepare.main("photos")
    before = contents(OUTPUT)
    edit(Path(), "photos", "images", image_size=64)
    assert_one_message(run(Path(), "prepare", "photos", limit=50_000), f"prepare photos: {NO_SPACE}")
    assert contents(OUTPUT) == before
    prepare.main("photos")
    assert load_array(OUTPUT / "train_images.npy").shape == (6, 64, 64, 3)


@pytest.fixture
def interrupt(photos, monkeypatch):
    """`interrupt(2)` prepares the photographs, two a chunk, until two chunks are read; `interrupt.starts` of each split."""
    monkeypatch.setattr(imagefiles, "CHUNK", 2)
    read_images = imagefiles.read_images

    def start(chunks=None):
        start.starts = []

        def stopped(listing, split, size, resize, start_at):
            start.starts.append(start_at)
            parts = read_images(listing, split, size, resize, start_at)
            yield from itertools.islice(parts, chunks)
            if chunks is not None:
                raise KeyboardInterrupt

        monkeypatch.setattr(imagefiles, "read_images", stopped)
        with pytest.raises(KeyboardInterrupt) if chunks is not None else contextlib.nullcontext():
            prepare.main("photos")

    return start


def test_preparing_goes_on_after_an_interrupt(photos, interrupt):
    prepare.main("photos")
    undisturbed = contents(OUTPUT)
    shutil.rmtree(OUTPUT)
    interrupt(2)
    assert not OUTPUT.exists()
    interrupt(None)
    assert interrupt.starts == [4, 0]
    assert contents(OUTPUT) == undisturbed


def test_a_bad_image_before_an_interrupt_is_not_forgotten(photos, interrupt):
    (photos / "train/cat/1.png").write_bytes(b"")
    interrupt(2)
    with pytest.raises(BlaError, match=r"1 of 6 train images cannot be used:\n.*train/cat/1\.png: not a readable"):
        interrupt(None)


@pytest.mark.parametrize("changed", ["train/cat/1.png", "masks/train/cat/1.png"])
def test_a_file_that_is_replaced_after_an_interrupt_is_read_again(changed, photos, interrupt):
    interrupt(2)
    mirrored = np.asarray(Image.open(photos / changed))[::-1].copy()
    (photos / changed).unlink()
    save_png(photos / changed, mirrored)
    interrupt(None)
    after = contents(OUTPUT)
    prepare.main("photos")
    assert contents(OUTPUT) == after
    place = SOURCES["train"].index("train/cat/1.png")
    np.testing.assert_array_equal(
        load_array(OUTPUT / "train_images.npy")[place], load_image(photos / "train/cat/1.png", 32, "bilinear")
    )
    np.testing.assert_array_equal(
        load_array(OUTPUT / "train_masks.npy")[place],
        load_mask(photos / "masks/train/cat/1.png", 32, "binary", (24, 40)),
    )


def save_weights(path):
    """A random test_resnet, the embedded backbone's architecture; timm starts the scales of its residual branches at zero."""
    torch.manual_seed(0)
    spec = Backbone("test_resnet", "random", "imagenet", output_stride=16)
    path.parent.mkdir(parents=True, exist_ok=True)
    state = build_backbone(spec, 32).model.state_dict()
    save_file({k: (v + torch.rand(v.shape) * 0.5 if v.ndim == 1 else v).contiguous() for k, v in state.items()}, path)
    return path


@pytest.fixture
def extracting(here, monkeypatch):
    """`extracting()` runs the stage `features` in this process; `extracting.starts` are the rows where it started.

    `extracting(2)` is interrupted after two chunks; there is one chunk a draw.
    """
    rng = np.random.default_rng(0)
    save_weights(here / "models/backbones/cluttered_digits.safetensors")
    for split, count in (("train", 40), ("test", 20)):
        images = rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        save_array(here / f"data/images/cluttered_digits/{split}_images.npy", images)
        save_array(here / f"data/images/cluttered_digits/{split}_labels.npy", np.arange(count) % 10)
    save_text(here / "data/images/cluttered_digits/manifest.csv", "forty and twenty images\n")
    extract = features.extract

    def start(chunks=None):
        start.starts = []

        def watched(extractor, images, device, draws, first_row):
            start.starts.append(first_row)
            yield from itertools.islice(extract(extractor, images, device, draws, first_row), chunks)
            if chunks is not None:
                raise KeyboardInterrupt

        monkeypatch.setattr(features, "extract", watched)
        with pytest.raises(KeyboardInterrupt) if chunks is not None else contextlib.nullcontext():
            features.main("cluttered_digits")
        return contents(FEATURES)

    return start


FEATURES = Path("data/features/cluttered_digits")
NOISY = {"stochastic_depth": 0.2, "draws": 5}


def test_draws_of_the_training_features_differ_and_test_features_are_clean(extracting):
    clean = extracting()
    cells, channels = load_array(FEATURES / "test_features.npy").shape[1:]
    assert cells == 16
    assert load_array(FEATURES / "train_features.npy").shape == (1, 40, cells, channels)
    edit(Path(), "cluttered_digits", "backbone", **NOISY)
    noisy = extracting()
    train = load_array(FEATURES / "train_features.npy")
    assert (train.shape, train.dtype) == ((5, 40, cells, channels), np.float16)
    for one, other in itertools.combinations(train, 2):
        assert (one != other).any((1, 2)).sum() > 10
    odd = {path.name for path in clean if clean[path] != noisy[path]}
    assert (clean.keys(), odd) == (noisy.keys(), {"train_features.npy"})
    assert not list(Path(".work").glob("features-*"))


KILL = """
import os, signal
from pipeline.stages import features
from pipeline.artifacts import files
from pipeline.run.stage import run_stage
save_text, written = files.save_text, []
def strike(path, text):  # as the third chunk is in the arrays, but not counted
    written.append(path.name)
    if written.count("done.json") == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    save_text(path, text)
files.save_text = strike
run_stage(features.main)
"""


def rows_in_stores():
    return sorted(json.loads(path.read_text())[0] for path in Path(".work").glob("features-*/done.json"))


def test_extraction_that_was_killed_goes_on_to_the_same_bytes(extracting):
    before = extracting()
    edit(Path(), "cluttered_digits", "backbone", **NOISY)
    assert run(Path(), "features", "cluttered_digits", code=KILL).returncode == -9
    assert rows_in_stores() == [80]
    assert contents(FEATURES) == before
    resumed = extracting()
    assert extracting.starts == [80, 0]
    assert rows_in_stores() == []
    shutil.rmtree(FEATURES)
    undisturbed = extracting()
    assert extracting.starts == [0, 0]
    assert resumed == undisturbed


def test_a_full_disk_leaves_the_earlier_features(extracting):
    before = extracting()
    edit(Path(), "cluttered_digits", "backbone", **NOISY)
    done = run(Path(), "features", "cluttered_digits", limit=400_000)
    assert_one_message(done, f"features cluttered_digits: {NO_SPACE}")
    assert contents(FEATURES) == before
    (whole_rows,) = rows_in_stores()
    assert whole_rows > 0
    resumed = extracting()
    assert extracting.starts == [whole_rows, 0]
    assert resumed == extracting()


def test_other_images_from_the_same_files_start_the_extraction_anew(extracting):
    edit(Path(), "cluttered_digits", "backbone", **NOISY)
    extracting(2)
    assert rows_in_stores() == [80]
    path = Path("data/images/cluttered_digits/train_images.npy")
    save_array(path, load_array(path)[:, ::-1])  # as another `resize` would, without a change to the manifest
    anew = extracting()
    assert extracting.starts == [0, 0]
    assert anew == extracting()


HUB = """
from pipeline.stages import backbone
from pipeline.run.stage import run_stage
from bla.base.download import Source
backbone.backbones.HUB["timm/small"] = Source("small.safetensors", ("{url}",), None, "sha256:{sha256}")
run_stage(backbone.main)
"""


@pytest.fixture
def hub(here, monkeypatch):
    """Weights that a server on loopback has, with their address; they are what the photographs' backbone names."""
    file = save_weights(here / "site/model.safetensors")
    edit(here, "photos", "backbone", architecture="test_resnet", weights="timm/small", output_stride=16)
    edit(here, "photos", "images", image_size=32)
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=file.parent))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield file, f"http://127.0.0.1:{server.server_port}/{file.name}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_weights_named_on_the_hub_are_downloaded(hub):
    file, url = hub
    code = HUB.format(url=url, sha256=hashlib.sha256(file.read_bytes()).hexdigest())
    done = run(Path(), "backbone", "photos", code=code)
    assert (done.returncode, done.stderr) == (0, "")
    assert Path("data/raw/weights/small.safetensors").read_bytes() == file.read_bytes()
    ours, theirs = load_file("models/backbones/photos.safetensors"), load_file(file)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_weights_with_another_hash_are_refused(hub, monkeypatch):
    file, url = hub
    found, wanted, size = hashlib.sha256(file.read_bytes()).hexdigest(), "0" * 64, file.stat().st_size
    source = Source("small.safetensors", (url,), None, f"sha256:{wanted}")
    monkeypatch.setitem(backbone.backbones.HUB, "timm/small", source)
    assert end_of(monkeypatch, backbone.main, "backbone", "photos") == (
        f"error in backbone photos: params.yaml: dataset.photos.backbone: small.safetensors: the download has {size} bytes "
        f"with sha256:{found}, not {size} bytes with sha256:{wanted}; run again, or put the file by hand at "
        "data/raw/weights/small.safetensors"
    )
    assert not Path("models").exists()
    assert not list(Path("data/raw/weights").iterdir())


def planned(monkeypatch, *words, free=10**12, rates=(0.01, 0.1, 0.001, 49, 1280)):
    """What `plan` ends with in this process; so much of the disk is free, and an image takes so many seconds."""
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(2 * 10**12, 2 * 10**12 - free, free))
    monkeypatch.setattr(plan, "_rates", lambda *_: rates)
    return end_of(monkeypatch, plan.main, "plan", *words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["cat_vs_dogs"], "params.yaml: there is no cat_vs_dogs (did you mean cats_vs_dogs?)"),
        (["photos"], "a plan is for the paper's datasets: cats_vs_dogs, stanford_dogs, caltech_birds"),
        (
            ["cats_vs_dogs", "oxford_pet"],
            "a plan is for the paper's datasets: cats_vs_dogs, stanford_dogs, caltech_birds",
        ),
    ],
)
def test_a_plan_is_for_the_datasets_of_the_paper(words, message, here, monkeypatch):
    assert planned(monkeypatch, *words) == f"error in {' '.join(['plan', *words])}: {message}"
    assert not Path("data").exists()


def test_a_plan_counts_images_draws_and_bytes(here, monkeypatch, capsys):
    edit(Path(), "cats_vs_dogs", "training", epochs=3)
    assert planned(monkeypatch, "cats_vs_dogs") is None
    line, total = capsys.readouterr().out.splitlines()
    passes = 18_609 * 5 + 4_653
    lime, slow, curves = 2 * 100 * 1000, 500 + 1280, 2 * 2 * 14 * 16 * 3
    explained = lime + 40 * (slow + curves) + 3 * 5 * (1000 + slow)
    images, numbers = 23_262 * 224 * 224 * 3, passes * 49 * 1280 * 2
    assert line == (
        f"cats_vs_dogs: 23,262 images; download 0.82 GB; disk {(2 * 824_887_076 + images + numbers) / 1e9:.1f} GB, of it "
        f"{numbers / 1e9:.1f} GB features; reading 4 min, extraction 2.7 h (5 draws), 2 runs of 6 variants 6 min, "
        f"explanations 11.7 h ({explained:,} forward passes)"
    )
    assert total.startswith(
        "in all: 0.8 GB to download to data/raw, 17 GB of disk (1000 GB are free), roughly 14.6 h on"
    )
    assert "10 MB/s" in total


def test_a_plan_larger_than_the_free_disk_ends_with_an_error(here, monkeypatch, capsys):
    message = "error in plan cats_vs_dogs: data/raw: 17 GB are needed, 16 GB are free; make room"
    assert planned(monkeypatch, "cats_vs_dogs", free=16 * 10**9) == message
    assert "17 GB of disk (16 GB are free)" in capsys.readouterr().out


@pytest.mark.parametrize(
    "place", ["data/features/cats_vs_dogs/train_features.npy", ".work/features-cats_vs_dogs-train-0/a.npy"]
)
def test_what_is_on_the_disk_already_needs_no_room(place, here, monkeypatch, capsys):
    Path("data/raw/cats_vs_dogs/kagglecatsanddogs_5340").mkdir(parents=True)
    edit(Path(), "cats_vs_dogs", "images", image_size=32)
    plans = partial(planned, monkeypatch, "cats_vs_dogs", free=50_000_000, rates=(0.01, 0.1, 0.001, 4, 1))
    assert "GB are needed" in plans()
    assert "in all: 0.0 GB to download" in capsys.readouterr().out
    Path(place).parent.mkdir(parents=True)
    with Path(place).open("wb") as file:
        file.truncate(30_000_000)
    assert plans() is None


def test_a_plan_measures_this_machine(project):
    edit(project, "cats_vs_dogs", "images", image_size=64)
    edit(project, "cats_vs_dogs", "backbone", architecture="test_resnet", output_stride=16)
    done = run(project, "plan", "cats_vs_dogs")
    assert (done.returncode, done.stderr) == (0, "")
    line, total = done.stdout.splitlines()
    duration = r"[\d.]+ (s|min|h)"
    assert re.fullmatch(
        rf"cats_vs_dogs: 23,262 images; download 0\.82 GB; disk 2\.2 GB, of it 0\.3 GB features; "
        rf"reading {duration}, extraction {duration} \(5 draws\), 2 runs of 6 variants {duration}, explanations {duration} \([\d,]+ forward passes\)",
        line,
    )
    assert re.match(
        rf"in all: 0\.8 GB to download to data/raw, 2 GB of disk \(\d+ GB are free\), roughly {duration} on this "
        r"machine \(cpu\) if",
        total,
    )
    assert (project / "data/raw").is_dir()
    assert contents(project / "data") == {}
