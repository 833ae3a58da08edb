"""Shared fixtures: a small project, its settings, and stages run in this process.

One thread per process: two workers with two threads each would slow each other down.
"""

import itertools
import os
import shutil
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import yaml

from bla.base.atomic import save_array, save_text
from pipeline.run.stage import run_by_name

ROOT = Path(__file__).resolve().parents[1]
CODE = (
    "pipeline",
    "src",
    "reports/notebooks",
    "benchmarks/stages.csv",
    "data/published_values.csv",
    "data/study/.gitignore",
    "dvc.yaml",
    "reports/study/dvc.yaml",
    ".dvc/config",
    ".dvc/plots.html",
    ".dvcignore",
    ".gitignore",
)
SMALL = {
    "datasets": ["painted_birds"],
    "variants": ["bla", "bla_t"],
    "explainers": ["cam", "score_cam", "rise", "random"],
    "learned_explainers": ["l_cam_fm", "l_cam_img", "explainer_network", "xnn"],
    "explainer.l_cam_fm": {"epochs": 1},
    "explainer.l_cam_img": {"epochs": 1, "images": 8},
    "explainer.explainer_network": {"epochs": 1, "images": 8},
    "explainer.xnn.epochs": 2,
    "runs": 2,
    "explainer.lime.patterns": 100,
    "explainer.rise.masks": 20,
    "faithfulness.left_out": [],
    "faithfulness.run": 0,
    "faithfulness.images": 6,
    "faithfulness.slow_images": 4,
    "faithfulness.check_images": 2,
    "faithfulness.retraining_images": 32,
    "statistics.resamples": 99,
    "unstated_choices.datasets": ["painted_birds"],
    "unstated_choices.images": 40,
    "unstated_choices.runs": 2,
    "unstated_choices.draws": 2,
    "temperature_threshold.datasets": ["painted_birds"],
    "temperature_threshold.temperatures": [0.1],
    "temperature_threshold.threshold_factors": [0, 0.98],
    "temperature_threshold.runs": 2,
    "abandoned_modules.datasets": ["painted_birds"],
    "abandoned_modules.runs": 2,
    "abandoned_modules.variants": {
        "concept_vector": {
            "explanation": "concept_vector",
            "head": "trained",
            "temperature": 0.1,
            "activation": "linear",
        },
        "concept_vector_relu": {
            "explanation": "concept_vector",
            "head": "trained",
            "temperature": 0.1,
            "activation": "relu",
        },
        "pointwise": {"explanation": "pointwise", "head": "trained", "temperature": 0.1},
    },
    "small_cnn.images": 100,
    "small_cnn.training.epochs": 1,
    "small_cnn.runs": 2,
    "two_network_l2x.datasets": ["painted_birds"],
    "two_network_l2x.training.epochs": 1,
    "two_network_l2x.runs": 2,
    "two_network_l2x.train_images": 40,
    "two_network_l2x.test_images": 30,
    "two_network_l2x.digits.runs": 2,
    "multi_label.images": 4,
    "dataset.painted_flock.images.train_images": 40,
    "dataset.painted_flock.images.test_images": 20,
    "dataset.painted_flock.images.image_size": 32,
    "dataset.painted_flock.images.leaves": 2,
    "dataset.painted_flock.backbone.architecture": "test_resnet",
    "dataset.painted_flock.backbone.output_stride": 8,
    "dataset.painted_flock.training.epochs": 1,
    "planted_bias.datasets": ["painted_birds"],
    "planted_bias.images": 16,
    "planted_bias.runs": 2,
    "subset_selection.train_samples": 60,
    "subset_selection.test_samples": 30,
    "subset_selection.runs": 2,
    "subset_selection.training.epochs": 1,
    "subset_selection.training.batch_size": 20,
} | {
    f"dataset.{name}.{setting}": value
    for name in ("painted_birds", "painted_pair")
    for setting, value in {
        "images.train_images": 40,
        "images.test_images": 20,
        "images.image_size": 32,
        "images.leaves": 2,
        "images.loose_parts": 1,
        "backbone.architecture": "test_resnet",
        "backbone.output_stride": 8,
        "training.epochs": 1,
    }.items()
}
"""What a small project changes in the real params.yaml."""


def _edit(project, changes):
    path = project / "params.yaml"
    params = yaml.safe_load(path.read_text())
    for name, value in changes.items():
        *parents, last = name.split(".")
        section = params
        for parent in parents:
            section = section[parent]
        section[last] = value
    path.write_text(yaml.safe_dump(params, sort_keys=False))


@pytest.fixture(scope="session")
def edit_params():
    """`edit_params(project, {"variant.bla.temperature": 0.2})` sets dotted names in its params.yaml."""
    return _edit


@pytest.fixture(scope="session")
def make_project(tmp_path_factory, save_random_weights):
    """`make_project(folder)` creates a small project in which nothing has run; `copy` copies the code, else it is linked.

    Its painted birds have 32 pixels and a random backbone.
    """
    weights = save_random_weights(tmp_path_factory.mktemp("weights") / "random.safetensors")

    def make(folder, copy=False, changes=()):
        for name in CODE:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            if copy and (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
            elif copy:
                shutil.copy(ROOT / name, folder / name)
            else:
                (folder / name).symlink_to(ROOT / name)
        shutil.copy(ROOT / "params.yaml", folder / "params.yaml")
        random = {
            f"dataset.{name}.backbone.weights": str(weights)
            for name in ("painted_birds", "painted_pair", "painted_flock")
        }
        _edit(folder, SMALL | random | dict(changes))
        return folder

    return make


@pytest.fixture
def project(tmp_path, make_project):
    """A small project in which nothing has run."""
    return make_project(tmp_path)


@pytest.fixture
def here(project, monkeypatch):
    """The small project as the working directory, for stages that run in this process."""
    monkeypatch.chdir(project)
    monkeypatch.delenv("BLA_DATA_ROOT", raising=False)
    monkeypatch.setenv("BLA_DEVICE", "cpu")
    return project


@pytest.fixture
def end_of():
    """`end_of("prepare", "painted_birds")` runs a stage here; returns None, or on failure its message or exit code."""

    def run(*words):
        try:
            run_by_name(list(words))
        except SystemExit as end:
            return end.code
        return None

    return run


@pytest.fixture(scope="session")
def contents():
    """`contents(folder)`: the bytes of all files by relative path; empty if the folder is missing."""

    def read(folder):
        files = [path for path in sorted(Path(folder).rglob("*")) if path.is_file()]
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}

    return read


@pytest.fixture(scope="session")
def process():
    """`process(project, "prepare", "photos")` runs a stage in a new process.

    `before` is code that runs first in this process; `module` is the module for `python -m`.
    """

    def run(project, *words, module="pipeline", before="", **environment):
        code = [
            "-c",
            f"import pipeline\n{before}\nfrom pipeline.run.stage import run_by_name\nrun_by_name({list(words)!r})",
        ]
        own = {name: value for name, value in os.environ.items() if not name.startswith("BLA_")}
        return subprocess.run(
            [sys.executable, *(code if before else ["-m", module, *words])],
            cwd=project,
            env=own | {"BLA_DEVICE": "cpu"} | environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def message_of():
    """`message_of(done)` checks that stderr is one message without traceback and the exit code 1; returns the message."""

    def read(done, code=1):
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        assert done.stderr.count("error in ") == 1
        assert done.stderr.startswith("error in ")
        return done.stderr.strip()

    return read


@pytest.fixture(scope="session")
def save_random_weights():
    """`save_random_weights(path)` writes a small random network, a test_resnet.

    timm initialises the scales of residual branches with zero; here they are random, so that every branch has an effect.
    """

    import torch
    from safetensors.torch import save_file

    from bla.base.specs import Backbone
    from bla.networks.backbones import build_backbone

    def save(path):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            state = build_backbone(
                Backbone(architecture="test_resnet", weights="random", normalisation="imagenet", output_stride=16), 32
            ).model.state_dict()
            state = {
                name: value + torch.rand(value.shape) * 0.5 if value.ndim == 1 else value
                for name, value in state.items()
            }
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: value.contiguous() for name, value in state.items()}, path)
        return path

    return save


@pytest.fixture(scope="session")
def save_random_features():
    """`save_random_features(project)` writes random features of 40 training and 20 test images, times `scale`."""

    def save(project, scale=1.0):
        rng = np.random.default_rng(0)
        for split, count in (("train", 40), ("test", 20)):
            shape = (*([1] if split == "train" else []), count, 2, 2, 2000)
            features = (rng.random(shape) * scale).astype(np.float16)
            save_array(project / f"data/features/painted_birds/{split}_features.npy", features)
            save_array(project / f"data/features/painted_birds/{split}_labels.npy", np.arange(count) % 10)

    return save


@pytest.fixture
def extractable(here, save_random_weights):
    """The small project as the working directory, with random weights and images for `features painted_birds`."""
    rng = np.random.default_rng(0)
    save_random_weights(here / "models/backbones/painted_birds.safetensors")
    for split, count in (("train", 40), ("test", 20)):
        images = rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        save_array(here / f"data/images/painted_birds/{split}_images.npy", images)
        save_array(here / f"data/images/painted_birds/{split}_labels.npy", np.arange(count) % 10)
    save_text(here / "data/images/painted_birds/manifest.csv", "forty and twenty images\n")
    return here


@pytest.fixture(scope="session")
def save_png():
    """`save_png(path, pixels)` writes an image file."""

    from PIL import Image

    def save(path, pixels):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, "PNG")

    return save


@pytest.fixture
def photos(here, edit_params, save_png):
    """The folder of a dataset with six training images (the first is grey) and two test images, all with masks."""
    edit_params(here, {"dataset.photos.images.image_size": 32, "dataset.photos.images.masks": "binary"})
    folder, rng = here / "data/raw/photos", np.random.default_rng(0)
    training, testing = (
        itertools.product(["train"], ["cat", "dog"], "012"),
        itertools.product(["test"], ["cat", "dog"], "0"),
    )
    for split, animal, number in (*training, *testing):
        name = f"{split}/{animal}/{number}.png"
        pixels = rng.integers(0, 256, (24, 40, 3), dtype=np.uint8)
        save_png(folder / name, pixels[..., 0] if name == "train/cat/0.png" else pixels)
        save_png(folder / "masks" / name, np.uint8(255) * (pixels[..., 0] > 200))
    return folder


EXPLAINED = {
    "variants": ["bla_t"],
    "explainers": ["cam", "rise", "random"],
    "learned_explainers": [],
    "explainer.rise": {"masks": 10, "presence": 0.5, "grid": 4},
    "faithfulness.images": 10,
    "faithfulness.slow_images": 5,
    "dataset.painted_birds.images.train_images": 80,
    "dataset.painted_birds.images.test_images": 40,
    "faithfulness.retraining_images": 40,
}
"""Settings of the project `explained`: several chunks, methods and levels."""


@pytest.fixture(scope="session")
def explained_once(tmp_path_factory, make_project, save_random_weights):
    """A small project with a random backbone, run up to `faithfulness`. Do not modify it."""
    project = make_project(tmp_path_factory.mktemp("explained"), changes=EXPLAINED)
    save_random_weights(project / "models/backbones/painted_birds.safetensors")
    stages = [
        ("prepare",),
        ("features",),
        ("baseline",),
        ("train_variant", "bla_t"),
        ("lime",),
        ("maps",),
        ("faithfulness",),
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        patch.delenv("BLA_DATA_ROOT", raising=False)
        patch.setenv("BLA_DEVICE", "cpu")
        for stage, *more in stages:
            run_by_name([stage, "painted_birds", *more])
    return project


@pytest.fixture
def explained(explained_once, tmp_path, monkeypatch):
    """A copy of the project `explained_once` as the working directory."""
    copy = tmp_path / "copy"
    shutil.copytree(explained_once, copy, symlinks=True)
    monkeypatch.chdir(copy)
    monkeypatch.delenv("BLA_DATA_ROOT", raising=False)
    monkeypatch.setenv("BLA_DEVICE", "cpu")
    return copy
