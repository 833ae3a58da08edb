"""The stage `planted_bias` in a small project: what differs between the two trainings, its files, and what it leaves out."""

from dataclasses import make_dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from bla.base.errors import BlaError
from bla.explainers.learned.l_cam_fm import LCamFm
from bla.explainers.posthoc.cam import CAM, cam
from pipeline.artifacts.features import load_features
from pipeline.artifacts.models import load_head
from pipeline.maps.planted_bias import CUED, BiasedTraining
from pipeline.run.settings import load_settings

BIRDS = "painted_birds"


@pytest.fixture
def trained(here, edit_params, end_of):
    edit_params(here, {"explainers": ["cam", "random", "constant"], "learned_explainers": ["l_cam_fm"], "variants": ["bla_t"]})  # fmt: skip
    for words in (
        ("prepare",),
        ("backbone",),
        ("features",),
        ("baseline",),
        ("train_variant", "bla_t"),
        ("fit", "l_cam_fm"),
    ):
        assert end_of(words[0], BIRDS, *words[1:]) is None
    return here


@pytest.mark.slow
def test_only_the_training_images_of_the_cues_class_differ_and_only_the_class_with_the_cue_is_explained(
    trained, end_of
):
    bias = BiasedTraining(BIRDS, load_settings())
    features, labels = load_features(BIRDS, "train")
    same = (bias.data.features == features).flatten(2).all(dim=2)[0]
    assert torch.equal(same, labels != CUED)
    assert torch.equal(bias.unbiased.tail.weight, load_head(BIRDS).weight)
    assert not torch.equal(bias.biased.tail.weight, bias.unbiased.tail.weight)
    maps = {method.name: method for method in bias.maps()}
    assert list(maps) == ["cam", "random", "constant", "l_cam_fm", "bla_t"]
    cells = bias.features(bias.cued).float()
    targets = torch.full((bias.runs, len(cells)), CUED)
    for classifier, found in ((bias.biased, maps["cam"].biased), (bias.unbiased, maps["cam"].unbiased)):
        expected = cam(cells, classifier.linear_head().weight, targets)
        np.testing.assert_allclose(found.reshape(expected.shape), expected, atol=2e-2, rtol=2e-2)  # half precision
    np.testing.assert_array_equal(maps["random"].biased, maps["random"].unbiased)
    assert not np.array_equal(maps["bla_t"].biased, maps["bla_t"].unbiased)

    assert end_of("planted_bias") is None
    table = pd.read_csv("reports/tables/planted_bias.csv")
    assert table.groupby("method", sort=False).size().to_dict() == dict.fromkeys(["bl", *maps], 2)
    constant = table[table["method"] == "constant"]
    np.testing.assert_allclose(constant["value"], bias.masks.mean(), rtol=1e-4)
    assert (constant["p_holm"] == 1).all()
    assert {path.name for path in Path("reports/figures/planted_bias").iterdir()} == {"chart.png", f"{BIRDS}.png"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["l_cam_img", "explainer_network", "xnn"])
def test_a_method_that_is_fitted_to_a_few_runs_alone_is_refused(name, trained, edit_params, end_of):
    edit_params(trained, {"learned_explainers": [name], "planted_bias.methods": [name]})
    message = end_of("planted_bias")
    assert message.startswith(
        f"error in planted_bias: params.yaml: planted_bias: {BIRDS}: methods: {name} is fitted to a few"
    )
    assert message.endswith("leave it out")


def test_such_a_method_is_refused_before_anything_is_read_or_trained(here, edit_params):
    edit_params(here, {"learned_explainers": ["xnn"], "planted_bias.methods": ["xnn"]})
    with pytest.raises(BlaError, match=r"^methods: xnn is fitted to a few runs alone \(explainer.xnn.runs\)"):
        BiasedTraining(BIRDS, load_settings())  # nothing is prepared here: reading would fail with another message


def test_a_method_that_trains_on_images_is_refused_too(here, edit_params, monkeypatch):
    edit_params(here, {"learned_explainers": ["l_cam_fm"], "planted_bias.methods": ["l_cam_fm"]})
    monkeypatch.setattr(LCamFm, "trains_on_images", True)
    with pytest.raises(BlaError, match=r"^methods: l_cam_fm trains on images"):
        BiasedTraining(BIRDS, load_settings())


@pytest.mark.slow
def test_a_method_that_learns_nothing_may_have_a_setting_called_runs(trained, monkeypatch):
    monkeypatch.setattr(CAM, "Settings", make_dataclass("Settings", [("runs", int, 2)], frozen=True))
    bias = BiasedTraining(BIRDS, load_settings())
    assert "cam" in [method.name for method in bias.methods]


def test_a_network_with_its_own_tail_is_left_out_with_a_reason(here, edit_params, end_of, capsys):
    edit_params(here, {f"dataset.{BIRDS}.backbone.tail": "own_softmax"})
    assert end_of("planted_bias") is None
    assert f"{BIRDS}: left out: a cue needs tail pooled" in capsys.readouterr().out
    assert pd.read_csv("reports/tables/planted_bias.csv").empty


def test_without_a_dataset_in_both_lists_the_table_is_empty(here, edit_params, end_of):
    edit_params(here, {"planted_bias.datasets": []})
    assert end_of("planted_bias") is None
    assert pd.read_csv("reports/tables/planted_bias.csv").empty
