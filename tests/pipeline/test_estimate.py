"""The estimate before `make paper`: download, disk space, time."""

import re
import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest

from pipeline.run import estimate
from pipeline.run.settings import load_settings
from pipeline.run.stage import run_stage

PATTERNS, MASKS, METHODS = 100, 20, 4 + 6 + 1
"""In the small project: LIME's patterns, RISE's masks, and the number of methods (`explainers`, variants and LIME)."""


@pytest.fixture
def estimated(here, monkeypatch):
    """`estimated("cats_vs_dogs")`: the final message of the estimate, on a disk with `free` free bytes.

    Rates are fixed: seconds per image for reading, extraction and training; cells; channels.
    """

    def run(*words, free=10**12, rates=(0.01, 0.1, 0.001, 49, 1280)):
        usage = namedtuple("usage", "total used free")
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(2 * 10**12, 2 * 10**12 - free, free))
        monkeypatch.setattr(estimate, "_rates", lambda *_: rates)
        try:
            run_stage(lambda: estimate.main, "estimate", list(words))
        except SystemExit as end:
            return end.code
        return None

    return run


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["cat_vs_dogs"], "did you mean cats_vs_dogs?"),
        (["painted_birds"], "(cats_vs_dogs, stanford_dogs, caltech_birds) or for oxford_pet"),
        (["cats_vs_dogs", "photos"], "and your own images (image_folder, image_table)"),
        (["cats_vs_dogs", "oxford_pet"], "(cats_vs_dogs, stanford_dogs, caltech_birds) or for oxford_pet"),
        ([], "(cats_vs_dogs, stanford_dogs, caltech_birds) or for oxford_pet"),
    ],
)
def test_an_estimate_is_for_the_datasets_of_the_paper_or_the_pets(words, part, estimated):
    message = estimated(*words)
    assert message.startswith(f"error in {' '.join(['estimate', *words])}: ")
    assert part in message
    assert not Path("data/raw").exists()


def test_an_estimate_counts_images_draws_and_bytes(here, estimated, edit_params, capsys):
    edit_params(here, {"dataset.cats_vs_dogs.training.epochs": 3})
    assert estimated("cats_vs_dogs") is None
    line, total = capsys.readouterr().out.splitlines()
    images, passes = 18_609 + 4_653, 18_609 * 5 + 4_653
    pixels, numbers = images * 224 * 224 * 3, passes * 49 * 1280 * 2
    lime, slow, curves = 100 * PATTERNS, MASKS + 1280, 2 * 2 * 9 * METHODS * 2
    explained = lime + 40 * (slow + curves) + 5 * (4 * PATTERNS + 3 * slow)
    seconds = images * 0.01, passes * 0.1, 6 * 3 * 18_609 * 0.001, explained * 0.1
    assert line.startswith(f"cats_vs_dogs: {images:,} images; download 0.82 GB; ")
    assert f"disk {(2 * 824_887_076 + pixels + numbers) / 1e9:.1f} GB ({numbers / 1e9:.1f} GB for features)" in line
    assert f"reading {seconds[0] / 60:.0f} min, extraction {seconds[1] / 3600:.1f} h (5 draws)" in line
    assert f"2 runs of 6 variants {seconds[2] / 60:.0f} min" in line
    assert f"explanations {seconds[3] / 3600:.1f} h ({explained:,} forward passes)" in line
    assert total.startswith("in all: 0.8 GB to download to data/raw, 17 GB of disk (1000 GB are free), roughly ")
    assert f"{(sum(seconds) + 82.5) / 3600:.1f} h on" in total
    assert "10 MB/s" in total


def test_the_pets_are_explained_and_trained_as_params_yaml_says(estimated, capsys):
    assert estimated("oxford_pet") is None
    line, total = capsys.readouterr().out.splitlines()
    slow, curves = MASKS + 1280, 2 * 2 * 9 * (4 + 2 + 1) * 2  # the small project has two variants
    explained = 6 * PATTERNS + 4 * (slow + curves) + 2 * (4 * PATTERNS + 3 * slow)
    assert line.startswith("oxford_pet: 7,349 images; download 0.81 GB; ")
    assert f"2 runs of 2 variants {2 * 5 * 3_680 * 0.001:.0f} s" in line
    assert f"({explained:,} forward passes)" in line
    assert "0.8 GB to download" in total


def test_methods_for_few_images_are_counted_on_their_images(here, estimated, edit_params, capsys):
    assert estimated("oxford_pet") is None
    before = int(re.search(r"\(([\d,]+) forward passes", capsys.readouterr().out)[1].replace(",", ""))
    listed = load_settings(here / "params.yaml").explainers
    edit_params(here, {"explainers": [*listed, "i_gos", "sag"], "explainer.sag": {"images": 100}})
    assert estimated("oxford_pet") is None
    after = int(re.search(r"\(([\d,]+) forward passes", capsys.readouterr().out)[1].replace(",", ""))
    curves = 2 * (2 * 2 * 9 * 2) * 4  # of two more methods, on the slow images
    assert after - before == 4 * 1400 + 6 * 200 + curves


@pytest.mark.parametrize(
    ("changes", "counts"),
    [
        ({}, (6, 2)),
        ({"train_images_per_class": 2}, (4, 2)),
        ({"validation_images": 1}, (5, 1)),
    ],
)
def test_images_of_ones_own_are_counted_and_nothing_is_downloaded(changes, counts, photos, here, estimated, edit_params, capsys):  # fmt: skip
    edit_params(here, {f"dataset.photos.images.{name}": value for name, value in changes.items()})
    assert estimated("photos") is None
    line, total = capsys.readouterr().out.splitlines()
    (train, test), curves = counts, 2 * 2 * 9 * (4 + 2 + 1) * 2
    slow = MASKS + 1280
    explained = test * (PATTERNS + slow + curves + 4 * PATTERNS + 3 * slow)  # fewer than `faithfulness` asks for
    assert line.startswith(f"photos: {train + test} images; download 0.00 GB; ")
    assert f"2 runs of 2 variants {2 * 5 * train * 0.001:.0f} s" in line
    assert f"({explained:,} forward passes)" in line
    assert total.startswith("in all: 0.0 GB to download")


def test_a_table_of_ones_own_is_counted_too(here, estimated, edit_params, save_png, capsys):
    table = {"kind": "image_table", "path": "table", "labels": "one", "image_size": 32}
    edit_params(here, {"dataset.photos.images": table})
    rows = [f"{number}.png,{'train' if number < 4 else 'test'},{'cat' if number % 2 else 'dog'}" for number in range(6)]
    for row in rows:
        save_png(here / "data/raw/table" / row.partition(",")[0], np.zeros((32, 32, 3), np.uint8))
    (here / "data/raw/table/images.csv").write_text("\n".join(["file,split,labels", *rows, ""]))
    assert estimated("photos") is None
    assert capsys.readouterr().out.startswith("photos: 6 images; ")


def test_the_estimate_of_a_missing_folder_is_one_message(here, estimated):
    message = estimated("photos")
    assert message.startswith("error in estimate photos: params.yaml: dataset.photos.images: ")
    assert "data/raw/photos/{train,test}/<class>/*.jpg" in message


def test_an_estimate_larger_than_the_free_disk_ends_with_an_error(estimated, capsys):
    message = estimated("cats_vs_dogs", free=16 * 10**9)
    assert message.startswith("error in estimate cats_vs_dogs: data/raw: 17 GB ")
    assert "16 GB are free" in message
    assert "17 GB of disk (16 GB are free)" in capsys.readouterr().out


@pytest.mark.parametrize(
    "place", ["data/features/cats_vs_dogs/train_features.npy", ".work/features-cats_vs_dogs-train-0/a.npy"]
)
def test_existing_files_need_no_disk_space(place, here, estimated, edit_params, capsys):
    Path("data/raw/cats_vs_dogs/kagglecatsanddogs_5340").mkdir(parents=True)
    edit_params(here, {"dataset.cats_vs_dogs.images.image_size": 32})
    little = {"free": 50_000_000, "rates": (0.01, 0.1, 0.001, 4, 1)}
    assert "data/raw: " in estimated("cats_vs_dogs", **little)
    assert "in all: 0.0 GB to download" in capsys.readouterr().out
    Path(place).parent.mkdir(parents=True)
    with Path(place).open("wb") as file:
        file.truncate(30_000_000)
    assert estimated("cats_vs_dogs", **little) is None


def test_an_estimate_measures_this_machine(here, edit_params, contents, capsys):
    small = {"images.image_size": 64, "backbone.architecture": "test_resnet", "backbone.output_stride": 16}
    edit_params(here, {f"dataset.cats_vs_dogs.{name}": value for name, value in small.items()})
    run_stage(lambda: estimate.main, "estimate", ["cats_vs_dogs"])
    line, total = capsys.readouterr().out.splitlines()
    duration = r"[\d.]+ (s|min|h)"
    assert re.search(
        rf"reading {duration}, extraction {duration} \(5 draws\), 2 runs of 6 variants {duration}, explanations {duration} \(",
        line,
    )
    assert re.search(rf"disk \(\d+ GB are free\), roughly {duration} on this machine \(cpu\)", total)
    assert contents(here / "data/raw") == {}


@pytest.mark.slow
def test_the_command_of_the_makefile_is_a_process_that_ends_with_the_message(project, process, message_of):
    assert "caltech_birds" in message_of(process(project, "painted_birds", module="pipeline.run.estimate"))
