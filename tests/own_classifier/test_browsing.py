"""What `save` wrote is read back, and becomes a page of the explanation browser."""

import json
import os
import shutil
import sys

import numpy as np
import pytest
from wrong_arrays import DAMAGED, NPZ

import bla
from bla import cli
from bla.base.errors import BlaError


@pytest.fixture(scope="module")
def saved(own, photos, tmp_path_factory):
    """A record with a method of two runs, a control and maps of pixels, and the folder where it is saved."""
    cached = bla.extract_features(own, photos, progress=False)
    module = bla.fit(own, cached, "bla_t", runs=2, epochs=1, progress=False)
    masks = bla.with_settings("i_gos", size=5, iterations=1, points=2)
    record = bla.explain(own, photos, [module, "cam", "random", masks], progress=False)
    return record, record.save(tmp_path_factory.mktemp("saved") / "out")


def test_a_saved_record_is_read_back(saved):
    record, folder = saved
    again = bla.load_record(folder)
    for name in ("names", "labels", "seed", "fingerprint"):
        assert getattr(again, name) == getattr(record, name)
    for name in ("pixels", "target", "predicted", "expected", "probabilities"):
        np.testing.assert_array_equal(getattr(again, name), getattr(record, name))
    assert list(again.results) == list(record.results)
    for name, result in record.results.items():
        for part in ("maps", "hard", "probabilities"):
            np.testing.assert_array_equal(getattr(again.results[name], part), getattr(result, part))
        assert again.results[name].control == (name == "random")
    assert again.table().equals(record.table())
    assert bla.browse(again) == bla.browse(record)


def test_the_page_has_every_photograph_class_and_method(saved, monkeypatch, capsys):
    record, folder = saved
    monkeypatch.setattr(sys, "argv", ["bla", "browse", str(folder)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert not end.value.code
    assert "browser.html" in capsys.readouterr().out
    text = (folder / "browser.html").read_text()
    for word in (*record.names, *record.labels, "BLA-T", "CAM", "I-GOS"):
        assert word in text


def pipe_at(path):
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "maps/cam/cat/0.png.npy").unlink(), r"maps.cam.cat.0.png.npy: missing or damaged"),
        (lambda folder: (folder / "photographs/dog/1.png.png").write_bytes(b"no"), r"1.png.png: missing or damaged"),
        (lambda folder: (folder / "manifest.json").write_text("{"), r"manifest.json: missing or damaged"),
        (lambda folder: (folder / "manifest.json").unlink(), r"manifest.json: missing or damaged"),
        (lambda folder: np.save(folder / "probabilities.npy", np.ones((2, 3))), "probabilities.npy has the shape"),
        (lambda folder: np.save(folder / "probabilities/cam.npy", np.ones((1, 6, 2))), "cam.npy has the shape"),
        (lambda folder: np.save(folder / "cells/cam/cat/0.png.npy", np.ones((2, 3, 5))), "missing or damaged"),
        (lambda folder: np.save(folder / "probabilities.npy", np.array([{}], object)), "npy: missing or damaged"),
        (lambda folder: edit(folder, {"schema": 1}), "has schema 1, not 2"),
        (lambda folder: edit(folder, {"labels": ["cat"]}), "manifest.json: missing or damaged"),
        (lambda folder: edit(folder, {"probabilities": "../x.npy"}), "lies outside the folder"),
        (lambda folder: np.save(folder / "maps/cam/cat/0.png.npy", np.full((3, 5), np.nan)), "holds NaN or infinite"),
        (lambda folder: np.save(folder / "maps/cam/cat/0.png.npy", np.full((3, 5), np.inf)), "holds NaN or infinite"),
        (lambda folder: pipe_at(folder / "photographs/cat/0.png.png"), "0.png.png: missing or damaged .a pipe, socket"),
    ],
)
def test_a_damaged_folder_is_one_message_and_makes_no_page(change, message, saved, tmp_path):
    folder = saved[0].save(tmp_path / "copy")
    change(folder)
    with pytest.raises(BlaError, match=message):
        bla.load_record(folder)
    assert not (folder / "browser.html").exists()


@pytest.mark.parametrize("kind", NPZ | DAMAGED)
def test_several_arrays_or_a_damaged_file_in_place_of_one_are_one_message(kind, saved, tmp_path):
    reason = r"holds several arrays \(\.npz\), not one" if kind in NPZ else ".+"
    for number, name in enumerate(("maps/cam/cat/0.png.npy", "cells/cam/dog/1.png.npy", "probabilities.npy")):
        folder = tmp_path / str(number)
        shutil.copytree(saved[1], folder)
        (NPZ | DAMAGED)[kind](folder / name)
        with pytest.raises(BlaError, match=rf"{name}: missing or damaged \({reason}\); run bla explain"):
            bla.load_record(folder)


def edit(folder, changes):
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_unknown_classes_and_records_without_methods(own, photos):
    record = bla.explain(own, sorted((photos / "cat").glob("*.png"))[0], [], progress=False)
    with pytest.raises(BlaError, match="no method"):
        bla.browse(record)
