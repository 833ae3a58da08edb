"""Stages as a user meets them: exit codes, one message, and results that survive whatever interrupts."""

import contextlib
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from bla.errors import BlaError
from pipeline.files import load_array, replacing, save_array, save_chunks, save_table, save_text
from pipeline.stage import data_path

ROOT = Path(__file__).resolve().parent.parent
NOT_FOUND = "No such file or directory; mend that and run again"
LAYOUT = "images belong in data/raw/photos/{train,test}/<class>/*.jpg"


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
        features = (rng.random((count, 4, 2000)) * value).astype(np.float16)
        save_array(project / f"data/features/cluttered_digits/{split}_features.npy", features)
        save_array(project / f"data/features/cluttered_digits/{split}_labels.npy", np.arange(count) % 10)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["prepare"], "prepare: usage: python -m pipeline.prepare DATASET"),
        (["prepare", "a", "b"], "prepare a b: usage: python -m pipeline.prepare DATASET"),
        (["explainer", "photos"], "explainer photos: usage: python -m pipeline.explainer DATASET VARIANT"),
        (["settings", "x"], "settings x: usage: python -m pipeline.settings"),
        (["prepare", "photo"], "prepare photo: params.yaml: there is no photo (did you mean photos?)"),
        (["explainer", "photos", "bl"], "explainer photos bl: params.yaml: there is no bl (did you mean bla?)"),
        (["prepare", "photos"], f"prepare photos: data/raw/photos/train: no such folder; {LAYOUT}"),
        (["baseline", "photos"], f"baseline photos: data/features/photos/train_features.npy: {NOT_FOUND}"),
        (
            ["backbone", "photos"],
            "backbone photos: params.yaml: dataset.photos.backbone: weights: data/raw/tf_efficientnetv2_b0.safetensors: "
            "no such file; relative paths start at $BLA_DATA_ROOT",
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


@pytest.fixture
def prepared(project):
    """The project after a stage has run, and what is to become of it: new settings, new images."""
    done = run(project, "prepare", "cluttered_digits")
    assert (done.returncode, done.stderr) == (0, "")
    shrink(project, train_images=80, test_images=20)
    return project


def test_a_full_disk_leaves_the_earlier_images(prepared):
    before = contents(prepared / "data")
    done = run(prepared, "prepare", "cluttered_digits", limit=100_000)
    assert_one_message(done, "prepare cluttered_digits: File too large; free some space and run again")
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
from pipeline.prepare import main
from pipeline.stage import run_stage
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
    assert run(prepared, "prepare", "cluttered_digits").returncode == 0
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
    save_chunks(tmp_path / "chunks.npy", (array[i : i + 3] for i in range(0, len(array), 3)), shape, dtype)
    assert len(set(contents(tmp_path).values())) == 1


def test_a_wrong_number_of_rows_writes_nothing(tmp_path):
    with pytest.raises(AssertionError, match="2 rows written, 3 announced"):
        save_chunks(tmp_path / "a.npy", [np.zeros(2)], (3,), float)
    assert contents(tmp_path) == {}


def test_a_change_to_a_loaded_array_does_not_reach_the_file(tmp_path):
    save_array(tmp_path / "a.npy", np.zeros(3))
    load_array(tmp_path / "a.npy")[:] = 1
    assert load_array(tmp_path / "a.npy").tolist() == [0, 0, 0]


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
