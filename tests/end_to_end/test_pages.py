"""The tutorial and the pages about an own dataset, variant and metric: their examples run in one small project."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from commands import ENV
from page_examples import blocks, files, follow, settings

pytestmark = pytest.mark.slow

PAGES = ("own_dataset.md", "own_variant.md", "own_metric.md")
VARIANTS = ["bla_t", "bla_hot", "bla_keep"]
DATASETS = ["painted_birds", "stripes"]
CODE = f"""
import json, pipeline, torch
from pathlib import Path
from pipeline.run.stage import run_by_name
for dataset in {DATASETS}:
    for stage in ("prepare", "backbone", "features", "baseline"):
        run_by_name([stage, dataset])
    for variant in {VARIANTS}:
        run_by_name(["train_variant", dataset, variant])
run_by_name(["tests"])

import numpy as np
from bla.method.equations import threshold
from bla.metrics import BY_NAME
from bla.metrics.measure import Subject, measure
from bla.method.modules import Head
from bla.networks.classifier import Classifier
weights = threshold(torch.tensor([[0.1, 0.2, 0.3, 0.4]]), 0.98, "keep").tolist()
classifier = Classifier(torch.nn.Identity(), Head(torch.ones(1, 2, 3), torch.zeros(1, 2)))
subject = Subject(classifier, torch.zeros(2, 32, 32, 3), np.zeros(2, int), np.zeros(2, int), [0, 1], torch.ones(2, 16, 3), (4, 4), None)
maps = {{"falling": np.tile(np.arange(16.0, 0, -1), (2, 1)), "zero": np.zeros((2, 16))}}
rows, _ = measure(subject, maps, {{}}, np.zeros(2, bool), 4, 2, occlude=False)
rows = rows[rows["metric"] == "concentration"].to_dict("records")
Path("results.json").write_text(json.dumps([weights, rows, BY_NAME["concentration"].better]))
"""
CHANGES = {
    "datasets": DATASETS,
    "variants": VARIANTS,
    "explainers": ["cam", "constant"],
    "learned_explainers": [],
    "runs": 5,
}
SMALL = {
    "dataset.stripes.images.train_images": 40,
    "dataset.stripes.images.test_images": 20,
    "dataset.stripes.images.image_size": 32,
    "dataset.stripes.training.epochs": 1,
}


@pytest.fixture(scope="module")
def project(tmp_path_factory, make_project, save_random_weights):
    """A small project in which somebody followed the pages, and then ran the stages up to the tests of the columns."""
    folder = tmp_path_factory.mktemp("pages")
    entries = {name: entry for page in PAGES for name, entry in settings(page).items()}
    weights = str(save_random_weights(folder / "random.safetensors"))
    backbone = {"architecture": "test_resnet", "weights": weights, "normalisation": "half", "output_stride": 8}
    make_project(folder, copy=True, changes=entries | CHANGES | SMALL | {"dataset.stripes.backbone": backbone})
    for page in PAGES:
        follow(page, folder)
    done = subprocess.run(
        [sys.executable, "-c", CODE], cwd=folder, env=ENV, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_the_dataset_has_the_classes_and_masks_of_its_page(project):
    folder = project / "data/images/stripes"
    images, labels = np.load(folder / "test_images.npy").astype(float), np.load(folder / "test_labels.npy")
    masks = np.load(folder / "test_masks.npy")
    assert pd.read_csv(folder / "classes.csv")["name"].tolist() == ["horizontal", "vertical"]
    assert np.bincount(labels).tolist() == [10, 10]
    np.testing.assert_allclose(masks.mean(axis=(1, 2, 3)), 0.25)
    white = (images.min(axis=3) == 255) & masks[:, 0]
    assert (white.sum(axis=(1, 2)) == 4 * 16).all()  # every fourth of 16 lines
    rows = white.any(axis=2).sum(axis=1)
    assert (rows[labels == 0] == 4).all()
    assert (rows[labels == 1] == 16).all()


def test_each_variant_of_the_page_is_a_column_with_tests(project):
    table = pd.read_csv(project / "reports/tables/tests.csv")
    for dataset in ("painted_birds", "stripes"):
        assert set(table[table["dataset"] == dataset]["variant"]) >= {"bla_t", "bla_hot", "bla_keep"}


def test_the_rule_of_the_page_keeps_the_weights_above_the_threshold(project):
    weights, _, _ = json.loads((project / "results.json").read_text())
    np.testing.assert_allclose(weights, [[0, 0, 0.3, 0.4]], atol=1e-7)  # gamma = 0.98 / 4 = 0.245


def test_the_metric_of_the_page_is_measured_with_the_others(project):
    _, rows, better = json.loads((project / "results.json").read_text())
    found = {(row["method"], row["image"]): row["value"] for row in rows}
    few = sum(range(14, 17)) / sum(range(1, 17))  # 3 of 16 cells, as 8 of 49
    assert better == "higher"
    assert found == pytest.approx({("falling", 0): few, ("falling", 1): few, ("zero", 0): np.nan, ("zero", 1): np.nan}, nan_ok=True)  # fmt: skip
    names: dict = {}
    exec(files("own_metric.md")["src/bla/metrics/concentration.py"], names)
    scores = names["concentration"](np.array([[4.0, 3, 2, 1], [0, 0, -1, 0], [-5, 0, 1, 0]]), 2)
    np.testing.assert_allclose(scores, [0.7, np.nan, 1])


def test_the_tutorial_computes_the_numbers_of_the_pipeline(project, monkeypatch, capsys):
    monkeypatch.chdir(project)
    names: dict = {}
    for example in blocks("tutorial.md", "python"):
        exec(example, names)
    run, image, results = names["run"], names["image"], names["results"]
    assert names["hard"].sum() == results["size"][run, image]
    assert (names["class_scores"].argmax() == names["labels"][image]) == results["correct"][run, image]
    assert names["difference"].mean() == pytest.approx(
        names["row"]["mean_difference"], abs=1e-5
    )  # losses in tables have six digits
    assert names["p"] == pytest.approx(names["row"]["p"])
    assert (project / "bird.png").exists()
    assert "of the explanation lies on the bird" in capsys.readouterr().out
