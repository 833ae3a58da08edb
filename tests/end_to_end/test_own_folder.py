"""The commands of docs/own_images.md and docs/sweeps.md on a folder of one's own, with DVC."""

import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from commands import ENV, run

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
COMMANDS = re.findall(r"```sh\n(.*?)```", (ROOT / "docs/own_images.md").read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def project(tmp_path_factory, make_project, save_png):
    """A small project in git, with photographs in data/raw that git does not track."""
    folder = make_project(tmp_path_factory.mktemp("own"), copy=True, changes={"dataset.photos.images.image_size": 64})
    rng = np.random.default_rng(0)
    for split, animal, number in [(s, a, n) for s in ("train", "test") for a in ("cat", "dog") for n in range(3)]:
        save_png(folder / f"data/raw/photos/{split}/{animal}/{number}.png", rng.integers(0, 256, (40, 40, 3), np.uint8))
    for words in (("init", "-q"), ("add", "-A"), ("commit", "-qm", "start")):
        run(folder, "git", *words)
    return folder


def test_a_temporary_experiment_finds_the_photographs_and_changes_no_file(project):
    assert "BLA_DATA_ROOT" not in ENV
    before = (project / "params.yaml").read_text()
    output = run(project, "dvc", "exp", "run", "--temp", "-n", "photos", "-S", "datasets=[photos]", "prepare@photos")
    assert "photos: 6 train images of 2 classes" in output
    assert (project / "params.yaml").read_text() == before
    assert not run(project, "git", "status", "--porcelain", "--untracked-files=no")
    shown = subprocess.run(
        ["dvc", "exp", "show", "--json"], cwd=project, env=ENV, capture_output=True, check=True
    ).stdout
    assert "photos" in {e["revs"][0]["name"] for state in json.loads(shown) for e in state["experiments"] or []}
    compare = [ENV["PATH"].partition(":")[0] + "/python", "-m", "pipeline.run.experiments"]
    done = subprocess.run(compare, cwd=project, env=ENV, input=shown, capture_output=True, check=True)
    lines = [line.split() for line in done.stdout.decode().splitlines()]
    assert ["experiment", "datasets"] in lines
    assert ["photos", "photos"] in lines


def test_the_plan_of_the_page_is_for_the_folder(project):
    (plan,) = [line.partition("#")[0].split() for line in COMMANDS[0].splitlines() if "estimate" in line]
    assert run(project, *plan).startswith("photos: 12 images; download 0.00 GB")
