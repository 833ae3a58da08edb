"""The stages that explain, run in this process on tiny images: what interrupts costs, bad input, and what decides a map."""

import os
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from conftest import end_of
from safetensors.torch import load_file, save_file

from bla.base.specs import Backbone
from bla.explainers.posthoc.lime import LIME
from bla.metrics.rank_correlation import spearman
from bla.networks.backbones import build_backbone
from pipeline.artifacts import files
from pipeline.artifacts.files import replacing
from pipeline.stages import baseline, faithfulness, features, lime, maps, prepare
from pipeline.stages import train_variant as explainer

ROOT = Path(__file__).resolve().parent.parent
DIGITS = "cluttered_digits"
SMALL = {"image_size": 32, "digit_size": 12, "fragments": 2, "fragment_size": 4, "train_images": 80, "test_images": 40}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A project whose heads and modules are trained, on a backbone of random weights."""
    project = tmp_path_factory.mktemp("trained")
    for name in ("pipeline", "src", "reports/notebooks"):
        (project / name).parent.mkdir(exist_ok=True)
        (project / name).symlink_to(ROOT / name)
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["dataset"][DIGITS]["images"] |= SMALL
    params["dataset"][DIGITS]["training"]["epochs"] = 1
    params |= {"runs": 2, "variants": ["bla_t"], "explainers": ["cam", "rise", "random"], "datasets": [DIGITS]}
    params["explainer"] = {
        "lime": params["explainer"]["lime"] | {"patterns": 100},
        "rise": {"masks": 10, "presence": 0.5, "grid": 4},
    }
    params["faithfulness"] |= {"images": 10, "slow_images": 5, "check_images": 2, "retraining_images": 40}
    (project / "params.yaml").write_text(yaml.safe_dump(params))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        patch.setenv("BLA_DEVICE", "cpu")
        prepare.main(DIGITS)
        torch.manual_seed(0)
        model = build_backbone(Backbone("test_resnet", "none", "imagenet", 16), 64).model
        Path("models/backbones").mkdir(parents=True)
        save_file({k: v.contiguous() for k, v in model.state_dict().items()}, f"models/backbones/{DIGITS}.safetensors")
        features.main(DIGITS)
        baseline.main(DIGITS)
        explainer.main(DIGITS, "bla_t")
        lime.main(DIGITS)
        maps.main(DIGITS)
        faithfulness.main(DIGITS)
    return project


@pytest.fixture
def here(trained, tmp_path, monkeypatch):
    """A copy of the project as the working directory."""
    shutil.copytree(trained, tmp_path / "copy", symlinks=True)
    monkeypatch.chdir(tmp_path / "copy")
    monkeypatch.setenv("BLA_DEVICE", "cpu")
    return tmp_path / "copy"


def edit(section, **changes):
    params = yaml.safe_load(Path("params.yaml").read_text())
    here = params
    for name in section.split(".") if section else []:
        here = here[name]
    here.update(changes)
    Path("params.yaml").write_text(yaml.safe_dump(params))


def outputs():
    return {
        path: path.read_bytes()
        for path in Path("data").rglob("*")
        if path.is_file() and path.parts[1] in ("lime", "maps", "faithfulness")
    }


def kept():
    return {path.name: path.stat().st_mtime_ns for path in Path(".work").glob("maps-*")}


def test_an_interrupted_lime_goes_on_where_it_was_and_ends_with_the_same_bytes(here, monkeypatch):
    before, explain, seen = outputs(), LIME.explain_runs, []

    def interrupt(self, images, targets, seeds):
        seen.append(len(images))
        if len(seen) == 4:
            raise KeyboardInterrupt
        return explain(self, images, targets, seeds)

    Path(f"data/lime/{DIGITS}.safetensors").unlink()
    monkeypatch.setattr(LIME, "explain_runs", interrupt)
    assert end_of(monkeypatch, lime.main, "lime", DIGITS) == 130
    assert not Path(f"data/lime/{DIGITS}.safetensors").exists()
    assert end_of(monkeypatch, lime.main, "lime", DIGITS) is None
    assert seen == [4, 4, 4, 4, 4, 4, 2, 2]  # the second chunk again, and the third, twice each
    assert outputs() == before
    assert not list(Path(".work").glob("lime-*"))


KILLED = f"""
import os, signal, sys
sys.path[:0] = ["."]
from pipeline.stages import maps
from bla.explainers.posthoc.rise import RISE
RISE.explain = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
maps.main("{DIGITS}")
"""


def test_a_killed_stage_of_maps_keeps_the_methods_that_were_done(here, monkeypatch):
    before = outputs()
    shutil.rmtree(".work")
    done = subprocess.run(
        [sys.executable, "-c", KILLED], env=os.environ | {"BLA_DEVICE": "cpu"}, capture_output=True, check=False
    )
    assert done.returncode == -signal.SIGKILL
    done_before = kept()
    assert [name.split("-")[2] for name in sorted(done_before)] == ["cam", "lime"]
    assert outputs() == before
    assert end_of(monkeypatch, maps.main, "maps", DIGITS) is None
    assert {name: kept()[name] for name in done_before} == done_before
    assert outputs() == before


@pytest.mark.parametrize(
    ("stage", "writer", "change"),
    [(lime, "lime", {"images": 9}), (maps, "maps", {"noise": 0.1}), (faithfulness, "faithfulness", {"orders": 2})],
)
def test_a_full_disk_leaves_what_was_there(stage, writer, change, here, monkeypatch):
    before = outputs()

    def full(path):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(stage, "replacing", full)
    monkeypatch.setattr(files, "replacing", full)
    edit("faithfulness", **change)
    message = end_of(monkeypatch, stage.main, writer, DIGITS)
    assert message.endswith("No space left on device; free some space and run again")
    assert outputs() == before


@pytest.mark.parametrize(
    ("stage", "missing"),
    [
        (lime, f"models/heads/{DIGITS}.safetensors"),
        (maps, f"data/lime/{DIGITS}.safetensors"),
        (maps, f"models/explainers/{DIGITS}/bla_t.safetensors"),
        (faithfulness, f"data/maps/{DIGITS}.safetensors"),
    ],
)
def test_a_missing_file_is_named(stage, missing, here, monkeypatch):
    Path(missing).unlink()
    name = stage.__name__.removeprefix("pipeline.")
    message = end_of(monkeypatch, stage.main, name, DIGITS)
    assert message == f"error in {name} {DIGITS}: No such file or directory: {missing}; mend that and run again"


def test_heads_of_other_runs_are_refused(here, monkeypatch):
    edit("", runs=3)
    message = f"error in lime {DIGITS}: models/heads/{DIGITS}.safetensors: not 3 heads; run dvc repro baseline@{DIGITS}"
    assert end_of(monkeypatch, lime.main, "lime", DIGITS) == message


@pytest.mark.parametrize(("stage", "before"), [(maps, "lime"), (faithfulness, "maps")])
def test_what_an_earlier_stage_wrote_of_other_images_is_refused(stage, before, here, monkeypatch):
    edit("faithfulness", images=9)
    name, file = stage.__name__.removeprefix("pipeline."), f"data/{before}/{DIGITS}.safetensors"
    assert end_of(monkeypatch, stage.main, name, DIGITS) == (
        f"error in {name} {DIGITS}: {file}: of other images than `faithfulness` asks for; run dvc repro {before}@{DIGITS}"
    )


@pytest.mark.parametrize(("stage", "before"), [(maps, "lime"), (faithfulness, "maps")])
def test_a_damaged_file_of_an_earlier_stage_is_named(stage, before, here, monkeypatch):
    file = Path(f"data/{before}/{DIGITS}.safetensors")
    file.write_bytes(file.read_bytes()[:1000])
    name = stage.__name__.removeprefix("pipeline.")
    message = end_of(monkeypatch, stage.main, name, DIGITS)
    assert message.startswith(f"error in {name} {DIGITS}: {file}: damaged (")
    assert message.endswith(f"; delete it and run dvc repro {before}@{DIGITS}")


@pytest.mark.parametrize("stage", [lime, maps, faithfulness])
def test_a_dataset_that_there_is_not(stage, here, monkeypatch):
    name = stage.__name__.removeprefix("pipeline.")
    message = f"error in {name} cluttered_digit: params.yaml: there is no cluttered_digit (did you mean {DIGITS}?)"
    assert end_of(monkeypatch, stage.main, name, "cluttered_digit") == message


def test_more_images_than_there_are_means_all(here):
    edit("faithfulness", images=1000)
    lime.main(DIGITS)
    assert sorted(load_file(f"data/lime/{DIGITS}.safetensors")["images"].tolist()) == list(range(40))


def test_lime_is_of_the_predicted_class_of_each_run_and_agrees_with_itself_in_part(here):
    found = load_file(f"data/lime/{DIGITS}.safetensors")
    assert found["maps"].shape == found["maps_again"].shape == (2, 10, 16)
    assert not found["maps"].equal(found["maps_again"])
    assert len(set(found["images"].tolist())) == 10
    assert found["targets"].shape == (2, 10)


def test_patterns_of_the_dataset_or_of_each_image_agree_within_their_sampling_error(here):
    edit("explainer.lime", patterns=400)
    edit("faithfulness", images=6)
    agreement = {}
    for setting in ("dataset", "image"):
        edit("explainer.lime", patterns_of=setting)
        lime.main(DIGITS)
        agreement[setting] = load_file(f"data/lime/{DIGITS}.safetensors")
    a, b = (agreement[setting]["maps"].double() for setting in ("dataset", "image"))
    again = agreement["dataset"]["maps_again"].double()
    within, between = (a - again).square().mean(), (a - b).square().mean()
    assert not a.equal(b)
    assert between < 2 * within  # both differences have the variance of two independent fits


def test_a_map_of_lime_belongs_to_the_run_that_is_measured(here):
    edit("faithfulness", run=1)
    maps.main(DIGITS)
    found, own = load_file(f"data/maps/{DIGITS}.safetensors"), load_file(f"data/lime/{DIGITS}.safetensors")
    assert found["maps/lime"].equal(own["maps"][1])
    assert found["targets"].equal(own["targets"][1])


def test_slow_methods_explain_some_images_and_check_fewer(here):
    found = load_file(f"data/maps/{DIGITS}.safetensors")
    there = {name: (~values[..., 0].isnan()).sum(dim=-1).tolist() for name, values in found.items() if values.ndim > 1}
    levels = len(there["random/cam"])
    assert there["maps/rise"] == 5
    assert there["maps/lime"] == there["maps/cam"] == there["maps/bla_t"] == 10
    assert there["noise/rise"] == there["noise/lime"] == 2
    assert there["random/rise"] == [2, *[0] * (levels - 2), 2]
    assert there["random/cam"] == [10] * levels
    assert there["retrained/bla_t"] == [10, 10]


def test_another_setting_of_one_method_makes_no_other_map_again(here):
    before = kept()
    edit("explainer.rise", masks=12)
    maps.main(DIGITS)
    assert sorted(set(before) - set(kept())) == [name for name in before if "-rise-" in name]
    assert sum(kept().get(name) == time for name, time in before.items()) == len(before) - 1


def test_constant_maps_count_as_zero_or_are_left_out(here):
    path = Path(f"data/maps/{DIGITS}.safetensors")
    from safetensors import safe_open

    with safe_open(path, "np") as file:
        levels = file.metadata()
    arrays = load_file(path)
    arrays["maps/cam"][3] = 1.0
    with replacing(path) as part:
        save_file(arrays, part, levels)
    found = {}
    for rule in ("zero", "leave_out"):
        edit("faithfulness", constant_maps=rule)
        faithfulness.main(DIGITS)
        table = pd.read_csv(f"data/faithfulness/{DIGITS}/per_image.csv").query("metric == 'lime' and method == 'cam'")
        found[rule] = table.set_index("image")["value"]
    number = int(arrays["images"][3])
    assert found["zero"][number] == 0
    assert number not in found["leave_out"].index
    assert len(found["zero"]) == len(found["leave_out"]) + 1 == 10


def test_every_score_of_a_run_is_that_of_its_maps(here):
    table = pd.read_csv(f"data/faithfulness/{DIGITS}/per_image.csv")
    arrays = load_file(f"data/maps/{DIGITS}.safetensors")
    own = table.query("metric == 'lime' and method == 'bla_t'").set_index("image")["value"]
    expected = spearman(arrays["maps/bla_t"].numpy(), arrays["maps/lime"].numpy())
    np.testing.assert_allclose(own.reindex(arrays["images"].numpy()), np.nan_to_num(expected), atol=1e-5)
    assert set(table["image"]) == set(arrays["images"].tolist())
    assert not table.duplicated(["method", "metric", "image"]).any()


def test_the_stages_write_the_same_bytes_again(here):
    before = outputs()
    shutil.rmtree(".work")
    for stage in (lime, maps, faithfulness):
        partial(stage.main, DIGITS)()
    assert outputs() == before
