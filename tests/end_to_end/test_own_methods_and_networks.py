"""The examples of docs/own_methods.md and docs/own_images.md run in all stages of a project, without registration."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from commands import run, run_stages
from page_examples import files
from PIL import Image
from safetensors.torch import load_file, save_file

from pipeline.artifacts.images import mask_names, object_masks

pytestmark = pytest.mark.slow

EXAMPLES = files("own_methods.md") | files("own_images.md")
METHODS = ["mean_activation", "input_gradient", "largest_cells", "class_means"]
TRAINING = {"batch_size": 8, "epochs": 2, "learning_rate": 0.01, "dropout": 0.2, "adam_epsilon": 1e-7}
RESNET = {"architecture": "test_resnet", "weights": "resnet.safetensors", "normalisation": "imagenet", "output_stride": 16}  # fmt: skip
SMALL = {"architecture": "own/small", "weights": "small.safetensors", "normalisation": "half"}
FOLDER = {"kind": "image_folder", "path": "photos", "masks": "binary"}
ENTRIES = {
    # A map of 2x4 cells.
    "wide": {"images": FOLDER | {"image_size": [32, 64]}, "backbone": RESNET},
    # Several classes per image, masks of a class and of a part, and a sigmoid for each class: heads, and fully connected
    # layers after the map, as in VGG.
    "several": {"images": {"kind": "image_table", "path": "table", "labels": "several", "image_size": 64, "masks": "binary"}, "backbone": RESNET},
    "sigmoid": {"images": {"kind": "image_table", "path": "table", "labels": "several", "image_size": 32, "masks": "binary"}, "backbone": SMALL | {"tail": "own_sigmoid"}},
}  # fmt: skip
CHANGES = {
    "datasets": list(ENTRIES),
    "variants": ["bla_t"],
    "explainers": ["cam", "grad_cam", "score_cam", "random", *METHODS[:3]],
    "learned_explainers": ["class_means"],
    "explainer.class_means": {"images": 20},
    "reports": ["faithfulness", "explanations"],
    "unstated_choices.datasets": ["several"],
    "temperature_threshold.datasets": ["several"],
    "abandoned_modules.datasets": ["several"],
    "two_network_l2x.datasets": ["wide"],
    "two_network_l2x.k": 2,
} | {f"dataset.{name}": entry | {"training": TRAINING} for name, entry in ENTRIES.items()}


def save_images(folder: Path) -> None:
    """Red cats and green dogs on noise: in class folders, and in a table in which some images show both or neither."""
    rng = np.random.default_rng(0)

    def draw(animals: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        pixels, masks = rng.integers(0, 120, (40, 80, 3), dtype=np.uint8), {}
        for animal, channel in (("cat", 0), ("dog", 1)):
            if animal in animals:
                top, left = rng.integers(0, 20), 40 * channel + rng.integers(0, 20)
                masks[animal] = np.zeros((40, 80), np.uint8)
                masks[animal][top : top + 20, left : left + 20] = 255
                pixels[..., channel][masks[animal] > 0] = 250
        return pixels, masks

    def save(path: Path, pixels: np.ndarray) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)

    for split, count in (("train", 10), ("test", 4)):
        for animal in ("cat", "dog"):
            for number in range(count):
                pixels, masks = draw(animal)
                save(folder / f"photos/{split}/{animal}/{number}.png", pixels)
                save(folder / f"photos/masks/{split}/{animal}/{number}.png", masks[animal])
    rows = []
    for number in range(40):
        animals = ["cat", "dog", "cat|dog", ""][number % 4]
        pixels, masks = draw(animals)
        save(folder / f"table/{number}.png", pixels)
        rows.append((f"{number}.png", "test" if number >= 28 else "train", animals))
        if "cat" in masks:
            save(folder / f"table/masks/cat/{number}.png", masks["cat"])
        if "dog" in masks:
            save(folder / f"table/masks/ear/{number}.png", masks["dog"])
    pd.DataFrame(rows, columns=["file", "split", "labels"]).to_csv(folder / "table/images.csv", index=False)


@pytest.fixture(scope="module")
def project(tmp_path_factory, make_project, save_random_weights):
    """A small project with the examples of the docs, after all stages."""
    folder = make_project(tmp_path_factory.mktemp("own"), copy=True, changes=CHANGES)
    for name, code in EXAMPLES.items():
        (folder / name).write_text(code)
    save_images(folder / "data/raw")
    save_random_weights(folder / "data/raw/resnet.safetensors")
    built: dict[str, object] = {}
    exec(EXAMPLES["src/bla/networks/own/small.py"], built)
    torch.manual_seed(0)
    save_file(built["build"]().state_dict(), folder / "data/raw/small.safetensors")
    run(folder, "git", "init", "-q")
    run(folder, "git", "add", "-A")
    run(folder, "git", "commit", "-qm", "start")
    (folder / "output").write_text(run_stages(folder))
    return folder


def rows(project, dataset):
    table = pd.read_csv(project / "reports/tables/faithfulness.csv")
    return table[table["dataset"] == dataset].set_index(["method", "metric"])


@pytest.mark.parametrize("dataset", ENTRIES)
def test_every_method_is_measured_by_every_metric(dataset, project):
    found = rows(project, dataset)
    pooled = dataset in ("wide", "several")
    methods = {*METHODS, "lime", "grad_cam", "score_cam", "random", "bla_t", *(["cam"] if pooled else [])}
    assert {method for method, _ in found.index} == methods | {"mask"}
    retrained = {"retrained_head", "retrained_network"}
    metrics = (
        {metric for _, metric in found.index} - retrained - {"weight_inside", "self_agreement"}
    )  # the first not of maps without positive values, the second of those that draw random numbers
    assert len(metrics) > 20
    for name in METHODS:
        assert {metric for method, metric in found.index if method == name} >= metrics
    assert {(name, metric) for name, metric in found.index if metric in retrained and name in METHODS} == {
        ("class_means", metric) for metric in retrained
    }


@pytest.mark.parametrize(
    ("dataset", "grid", "pixels"),
    [("wide", (2, 4), (32, 64)), ("several", (4, 4), (64, 64)), ("sigmoid", (4, 4), (32, 32))],
)  # fmt: skip
def test_maps_keep_their_own_resolution(dataset, grid, pixels, project):
    maps = load_file(project / f"data/maps/{dataset}.safetensors")
    assert maps["maps/mean_activation"].shape[1:] == grid
    assert maps["maps/class_means"].shape[1:] == grid
    assert maps["maps/bla_t"].shape[1:] == grid
    assert maps["maps/input_gradient"].shape[1:] == pixels
    cells = grid[0] * grid[1]
    sets = json.loads((project / f"data/maps/{dataset}.json").read_text())
    assert sets.keys() == {"largest_cells"}
    for of_image in sets["largest_cells"]:
        assert [len(cells_of_set) for cells_of_set in of_image] == [max(1, cells // 4)] * 2


def test_a_learned_method_is_fitted_to_every_run_of_the_classifier(project):
    for dataset, runs in (("wide", 2), ("several", 2), ("sigmoid", 1)):
        state = load_file(project / f"models/learned/{dataset}/class_means.safetensors")
        assert state["means"].shape[:2] == (runs, 2)
    assert "pipeline fit --dataset wide --explainer class_means" in (project / "output").read_text()


def test_methods_that_need_a_linear_head_are_left_out_if_the_tail_has_none(project):
    output = (project / "output").read_text()
    assert "sigmoid: cam is left out: this classifier has no linear head" in output
    table = pd.read_csv(project / "reports/tables/table2.csv")
    methods = set(table[table["dataset"] == "sigmoid"]["method"])
    assert methods >= {"lime", "bla_t"}
    assert "cam" not in methods


def test_an_explanation_is_compared_with_the_mask_of_its_class(project, monkeypatch):
    monkeypatch.chdir(project)
    assert mask_names("several") == ["cat", "ear"]
    masks = np.load("data/images/several/test_masks.npy")
    assert masks.shape == (12, 2, 64, 64)
    labels = np.load("data/images/several/test_labels.npy")
    both = int(np.nonzero(labels.all(axis=1))[0][0])
    of_cat, of_dog = object_masks("several", "test", np.array([both, both]), np.array([0, 1]))
    np.testing.assert_array_equal(of_cat, masks[both, 0])
    np.testing.assert_array_equal(of_dog, masks[both].any(axis=0))  # there is no mask of that name
    assert masks[both, 0].any()
    assert masks[both, 1].any()


def test_every_dataset_has_figures_pages_and_claims(project):
    for dataset in ENTRIES:
        for name in ("overview", "maps", "lime", "curves", "ranks", "cascade"):
            assert (project / f"reports/figures/{name}_{dataset}.png").stat().st_size > 10_000
    assert "class means" in (project / "reports/html/faithfulness.html").read_text()
    claims = pd.read_csv(project / "reports/tables/claims.csv")
    assert set(ENTRIES) <= set(claims["dataset"])


def test_a_setting_of_a_new_method_is_checked_before_anything_runs(project, process, message_of):
    path = project / "params.yaml"
    before = path.read_text()
    for change, message in (
        ({"imagess": 3}, "explainer.class_means.imagess: unknown setting (did you mean images?)"),
        ({"images": 1}, "explainer.class_means.images: input should be greater than or equal to 2, not 1"),
    ):
        params = yaml.safe_load(before)
        params["explainer"]["class_means"] = change
        path.write_text(yaml.safe_dump(params))
        assert message in message_of(process(project, "settings"))
    path.write_text(before)
