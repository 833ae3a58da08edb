"""The stages lime, maps and faithfulness on tiny images: outputs, and dependencies of maps."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from bla.base.atomic import replacing
from bla.metrics.rank_correlation import spearman
from bla.networks.backbones import Extractor

pytestmark = pytest.mark.slow

DIGITS = "painted_birds"
LIME, MAPS, SCORES = (
    Path(f"data/lime/{DIGITS}.safetensors"),
    Path(f"data/maps/{DIGITS}.safetensors"),
    Path("data/faithfulness"),
)


def outputs(contents):
    return {
        name: content for kind in ("lime", "maps", "faithfulness") for name, content in contents(f"data/{kind}").items()
    }


def cached():
    return {path.name: path.stat().st_mtime_ns for path in Path(".work").glob("maps-*")}


def test_heads_with_another_number_of_runs_are_refused_by_lime(explained, edit_params, end_of):
    edit_params(explained, {"runs": 3})
    message = end_of("lime", DIGITS)
    assert message.startswith(f"error in lime {DIGITS}: models/heads/{DIGITS}.safetensors: ")
    assert message.endswith(f"run dvc repro baseline@{DIGITS}")


@pytest.mark.parametrize(("stage", "earlier"), [("maps", "lime"), ("faithfulness", "maps")])
def test_files_of_an_earlier_stage_for_other_images_are_refused(stage, earlier, explained, edit_params, end_of):
    edit_params(explained, {"faithfulness.images": 9})
    message = end_of(stage, DIGITS)
    assert message.startswith(f"error in {stage} {DIGITS}: data/{earlier}/{DIGITS}.safetensors: ")
    assert message.endswith(f"run dvc repro {earlier}@{DIGITS}")


@pytest.mark.parametrize("stage", ["lime", "maps", "faithfulness"])
def test_a_dataset_that_does_not_exist_is_refused(stage, explained, end_of):
    message = end_of(stage, "painted_bird")
    assert message.startswith(f"error in {stage} painted_bird: params.yaml: ")
    assert f"did you mean {DIGITS}?" in message


def test_a_number_above_the_number_of_images_means_all_images(explained, edit_params, end_of):
    edit_params(explained, {"faithfulness.images": 1000})
    assert end_of("lime", DIGITS) is None
    assert sorted(load_file(LIME)["images"].tolist()) == list(range(40))


def test_lime_explains_the_predicted_class_of_each_run_and_partly_agrees_with_itself(explained):
    arrays = load_file(LIME)
    assert arrays["maps"].shape == arrays["maps_again"].shape == (2, 10, 16)
    assert not arrays["maps"].equal(arrays["maps_again"])
    assert len(set(arrays["images"].tolist())) == 10
    assert arrays["targets"].shape == (2, 10)


def test_shared_patterns_and_patterns_per_image_agree_within_sampling_error(explained, edit_params, end_of):
    edit_params(explained, {"explainer.lime.patterns": 400, "faithfulness.images": 6, "faithfulness.slow_images": 6})
    arrays = {}
    for setting in ("dataset", "image"):
        edit_params(explained, {"explainer.lime.patterns_of": setting})
        assert end_of("lime", DIGITS) is None
        arrays[setting] = load_file(LIME)
    a, b = (arrays[setting]["maps"].double() for setting in ("dataset", "image"))
    again = arrays["dataset"]["maps_again"].double()
    assert again.isfinite().all(dim=2).sum(dim=1).tolist() == [2, 2]  # of the images that are checked
    within, between = (a - again).square().nanmean(), (a - b).square().mean()
    assert not a.equal(b)
    assert between < 2 * within  # both differences have the variance of two independent fits


def test_the_lime_map_is_that_of_the_measured_run(explained, edit_params, end_of):
    edit_params(explained, {"faithfulness.run": 1})
    assert end_of("maps", DIGITS) is None
    maps, own = load_file(MAPS), load_file(LIME)
    assert maps["maps/lime"].flatten(1).equal(own["maps"][1])
    assert maps["targets"].equal(own["targets"][1])


def test_changed_maps_of_the_stage_lime_are_the_maps_that_are_measured(explained, end_of):
    lime = load_file(LIME)
    save_file(lime | {"maps": -lime["maps"]}, LIME)
    assert end_of("maps", DIGITS) is None
    slow = load_file(MAPS)["maps/lime"]
    np.testing.assert_array_equal(slow.flatten(1), -lime["maps"][0])


def test_slow_methods_explain_fewer_images_and_check_even_fewer(explained):
    arrays = load_file(MAPS)
    flat = {n: v.flatten(1) if n.startswith("maps/") else v for n, v in arrays.items() if v.ndim > 1}
    made = {n: (~values[..., 0].isnan()).sum(dim=-1).tolist() for n, values in flat.items()}
    assert arrays["maps/rise"].shape == (10, 32, 32)
    levels = len(made["random/cam"])
    assert made["maps/rise"] == 5
    assert made["maps/lime"] == made["maps/cam"] == made["maps/bla_t"] == 10
    assert made["noise/rise"] == made["noise/lime"] == 2
    assert made["random/rise"] == [2, *[0] * (levels - 2), 2]
    assert made["random/cam"] == [10] * levels
    assert made["retrained/bla_t"] == [10, 10]


@pytest.mark.parametrize(("images", "expected"), [(3, 3), (5, 5), (8, 8), (99, 10)])
def test_a_method_for_few_images_has_their_scores_without_ranks_and_tests(
    images, expected, explained, edit_params, end_of
):
    """It explains slow images first, so that it is measured by deletion; it ranks only where it has all images."""
    few = {"images": images, "size": 8, "iterations": 2, "points": 2, "area": 0.001, "variation": 0.01}
    edit_params(
        explained, {"explainers": ["cam", "rise", "random", "i_gos"], "explainer.i_gos": few, "datasets": [DIGITS]}
    )
    for stage in ("maps", "faithfulness"):
        assert end_of(stage, DIGITS) is None
    arrays = load_file(MAPS)
    chosen = ~arrays["maps/i_gos"].isnan().all(dim=(1, 2)).numpy()
    slow = ~arrays["maps/rise"].isnan().all(dim=(1, 2)).numpy()
    assert chosen.sum() == expected
    assert (chosen & slow).sum() == min(expected, 5)
    for name in ("again", "noise", "random"):
        assert arrays[f"{name}/i_gos"].isnan().all()
    costs = pd.read_csv(f"data/maps/{DIGITS}.csv").set_index("method")
    assert costs.loc["i_gos", "backwards"] <= 2 * 2 < costs.loc["i_gos", "forwards"]
    assert costs.loc["rise", ["forwards", "backwards"]].tolist() == [10, 0]
    seconds = pd.read_csv(f"data/seconds/{DIGITS}.csv").set_index("method")["seconds"]
    assert set(seconds.index) == set(costs.index)
    assert (seconds > 0).all()
    assert end_of("compare_methods") is None
    table = pd.read_csv("reports/tables/faithfulness.csv").query("method == 'i_gos'").set_index("metric")
    assert table.loc[["lime", "deletion_black", "seconds"], "n"].tolist() == [expected, min(expected, 5), expected]
    assert table["rank"].notna().to_dict()["lime"] == (expected == 10)
    assert table["rank"].notna().to_dict()["deletion_black"] == (expected >= 5)
    tests = pd.read_csv("reports/tables/faithfulness_tests.csv").query("method == 'i_gos'")
    assert ("lime" in set(tests["metric"])) == (expected == 10)
    assert "deletion_black" not in set(tests["metric"])  # five images cannot answer for each method
    differences = pd.read_csv("reports/tables/faithfulness_differences.csv").set_index("metric")
    others = ["lime", "cam", "rise"]  # no control, and no method that did not train
    assert differences.loc["deletion_black", ["n", "methods"]].tolist() == [5, len(others) + (expected >= 5)]


def test_maps_of_all_runs_agree_with_maps_of_the_measured_run(explained):
    arrays = load_file(MAPS)
    assert arrays["runs/cam"].shape == arrays["runs/bla_t"].shape == (2, 10, 16)
    for name in ("cam", "bla_t"):
        np.testing.assert_allclose(arrays[f"runs/{name}"][0], arrays[f"maps/{name}"].flatten(1), atol=1e-2)


def test_changing_the_setting_of_one_method_recomputes_only_its_maps(explained, edit_params, end_of):
    before = cached()
    edit_params(explained, {"explainer.rise.masks": 12})
    assert end_of("maps", DIGITS) is None
    after = cached()
    assert sorted(set(before) - set(after)) == [name for name in before if "-rise-" in name]
    assert sum(after.get(name) == time for name, time in before.items()) == len(before) - 1


def test_a_new_method_recomputes_no_other_maps(explained, edit_params, end_of):
    before = cached()
    assert len(before) == 5
    edit_params(explained, {"explainers": ["cam", "rise", "random", "edges"]})
    assert end_of("maps", DIGITS) is None
    after = cached()
    assert {name: after.get(name) for name in before} == before
    assert ["-edges-" in name for name in set(after) - set(before)] == [True]
    assert "maps/edges" in load_file(MAPS)


def test_constant_maps_count_as_zero_or_are_omitted(explained, edit_params, end_of):
    with safe_open(MAPS, "np") as file:
        levels = file.metadata()
    arrays = load_file(MAPS)
    arrays["maps/cam"][3] = 1.0
    with replacing(MAPS) as part:
        save_file(arrays, part, levels)
    values = {}
    for rule in ("zero", "leave_out"):
        edit_params(explained, {"faithfulness.constant_maps": rule})
        assert end_of("faithfulness", DIGITS) is None
        table = pd.read_csv(SCORES / DIGITS / "per_image.csv").query("metric == 'lime' and method == 'cam'")
        values[rule] = table.set_index("image")["value"]
    number = int(arrays["images"][3])
    assert values["zero"][number] == 0
    assert number not in values["leave_out"].index
    assert len(values["zero"]) == len(values["leave_out"]) + 1 == 10


def test_every_score_of_a_run_belongs_to_its_maps(explained):
    table, arrays = pd.read_csv(SCORES / DIGITS / "per_image.csv"), load_file(MAPS)
    own = table.query("metric == 'lime' and method == 'bla_t'").set_index("image")["value"]
    expected = spearman(arrays["maps/bla_t"].flatten(1).numpy(), arrays["maps/lime"].flatten(1).numpy())
    np.testing.assert_allclose(own.reindex(arrays["images"].numpy()), np.nan_to_num(expected), atol=1e-5)
    assert set(table["image"]) == set(arrays["images"].tolist())
    assert not table.duplicated(["method", "metric", "image"]).any()


def test_the_stages_write_the_same_bytes_again(explained, end_of, contents):
    before = outputs(contents)
    shutil.rmtree(".work")
    for stage in ("lime", "maps", "faithfulness"):
        assert end_of(stage, DIGITS) is None
    assert outputs(contents) == before


def test_a_dataset_that_is_left_out_has_fast_maps_pictures_and_the_effects_of_parts(explained, edit_params, end_of):
    edit_params(explained, {"faithfulness.left_out": ["painted_birds"]})
    for stage in ("lime", "maps", "faithfulness", "method_gallery"):
        assert end_of(stage, "painted_birds") is None
    methods = set(pd.read_csv("data/maps/painted_birds.csv")["method"])
    assert methods == {"cam", "random", "bla_t"}
    rows = pd.read_csv("data/faithfulness/painted_birds/per_image.csv")
    assert set(rows["metric"]) == {"part_effects", "part_effects_mean", "part_effects_probability", "own_part_effects"}
    assert set(rows["method"]) == {*methods, "mask"}
    assert set(pd.read_csv("data/faithfulness/painted_birds/parts.csv")["classifier"]) == {"explained", "bla_t"}
    assert len(pd.read_csv("data/faithfulness/painted_birds/curves.csv")) == 0
    for name in ("maps", "lime", "curves", "ranks", "cascade", "parts"):
        assert Path(f"reports/figures/{name}_painted_birds.png").is_file()


def test_methods_that_train_on_images_are_not_fitted_on_a_dataset_that_is_left_out(explained, edit_params, end_of):
    methods = {"l_cam_fm": {"epochs": 1}, "l_cam_img": {"epochs": 1, "images": 4}}
    changes = {
        "learned_explainers": list(methods),
        "datasets": ["painted_birds"],
        "faithfulness.left_out": ["painted_birds"],
    }
    edit_params(explained, changes | {f"explainer.{n}": s for n, s in methods.items()})
    for name in methods:
        assert end_of("fit", "painted_birds", name) is None
    assert load_file("models/learned/painted_birds/l_cam_fm.safetensors")["weight"].shape[0] == 2
    assert load_file("models/learned/painted_birds/l_cam_img.safetensors") == {}
    for stage in ("lime", "maps", "faithfulness"):
        assert end_of(stage, "painted_birds") is None
    assert set(pd.read_csv("data/maps/painted_birds.csv")["method"]) == {"cam", "random", "l_cam_fm", "bla_t"}
    for stage in ("compare_methods", "agreement", "errors", "learned_methods"):
        assert end_of(stage) is None
    for name in ("faithfulness", "agreement", "errors"):
        methods = set(pd.read_csv(f"reports/tables/{name}.csv")["method"])
        assert "l_cam_fm" in methods
        assert "l_cam_img" not in methods


def test_learned_methods_are_fitted_measured_and_told_whether_they_trained(explained, edit_params, end_of):
    training = {"epochs": 2, "batch_size": 8}
    methods = {"l_cam_fm": training, "l_cam_img": training | {"images": 10, "runs": 1}}
    edit_params(explained, {"learned_explainers": list(methods)} | {f"explainer.{n}": s for n, s in methods.items()})
    for name, runs in (("l_cam_fm", 2), ("l_cam_img", 1)):
        assert end_of("fit", DIGITS, name) is None
        assert load_file(f"models/learned/{DIGITS}/{name}.safetensors")["weight"].shape == (runs, 16, 96)
    assert end_of("maps", DIGITS) is None
    arrays = load_file(MAPS)
    assert arrays["maps/l_cam_fm"].shape == arrays["maps/l_cam_img"].shape == (10, 4, 4)
    assert arrays["retrained/l_cam_img"].isfinite().all()
    table = pd.read_csv(MAPS.with_suffix(".csv")).set_index("method")
    for column in ("objective", "objective_of_constant"):
        assert set(table.index[table[column].notna()]) == {"l_cam_fm", "l_cam_img", "bla_t"}
    table.loc["l_cam_fm", "objective"] = table.loc["l_cam_fm", "objective_of_constant"]
    table.loc["l_cam_img", "objective"] = table.loc["l_cam_img", "objective_of_constant"] - 1
    table.to_csv(MAPS.with_suffix(".csv"))
    assert end_of("faithfulness", DIGITS) is None
    assert end_of("compare_methods") is None
    means = pd.read_csv("reports/tables/faithfulness.csv").set_index("method")
    assert set(means.loc["l_cam_fm", "title"]) == {"L-CAM-Fm, did not train"}
    assert means.loc["l_cam_fm", "rank"].isna().all()
    assert set(means.loc["l_cam_img", "title"]) == {"L-CAM-Img (short training)"}
    assert means.loc["l_cam_img", "rank"].notna().any()
    trained = pd.read_csv("reports/tables/faithfulness_objectives.csv").set_index("method")["trained"]
    assert not trained["l_cam_fm"]
    assert trained["l_cam_img"]
    for stage in ("learned_methods", "agreement", "errors"):
        assert end_of(stage) is None
    for name in ("learned_methods", "learned_methods_tests", "learned_methods_cost", "agreement", "errors"):
        titles = pd.read_csv(f"reports/tables/{name}.csv").set_index("method")["title"]
        assert set(titles[["l_cam_fm"]]) == {"L-CAM-Fm, did not train"}
        assert set(titles[titles.index == "l_cam_img"]) <= {"L-CAM-Img (short training)"}
    cost = pd.read_csv("reports/tables/learned_methods_cost.csv").set_index("method")
    assert cost["trained_parameters"].to_dict() == {"l_cam_fm": 16 * 97, "l_cam_img": 16 * 97, "bla_t": 16 * 97 + 97}
    assert cost["n_runs"].to_dict() == {"l_cam_fm": 2, "l_cam_img": 1, "bla_t": 2}
    for name, seconds in cost["training_seconds"].items():
        of_all = pd.read_csv(f"data/seconds/{DIGITS}/{name}.csv").iloc[0]
        assert 0 < seconds == pytest.approx(of_all["seconds"] / of_all["runs"], rel=1e-4)


def test_an_image_goes_through_the_backbone_once_in_agreement_and_errors(explained, edit_params, end_of, monkeypatch):
    training = {"epochs": 1, "batch_size": 8}
    methods = {"l_cam_fm": training, "l_cam_img": training | {"images": 10, "runs": 2}}
    changes = {"explainers": ["cam", "grad_cam", "grad_cam_pp"], "learned_explainers": list(methods)}
    edit_params(explained, changes | {f"explainer.{name}": settings for name, settings in methods.items()})
    for name in methods:
        assert end_of("fit", DIGITS, name) is None
    assert end_of("maps", DIGITS) is None
    names = {image.tobytes(): name for name, image in enumerate(np.load(f"data/images/{DIGITS}/test_images.npy"))}
    computed, feature_map = [], Extractor.feature_map

    def counted(extractor, images):
        passed = [image.numpy().tobytes() for image in images]  # others try the network when it is loaded
        computed.extend(names[image] for image in passed if image in names)
        return feature_map(extractor, images)

    monkeypatch.setattr(Extractor, "feature_map", counted)
    monkeypatch.setattr("pipeline.stages.agreement.untrained_methods", list)
    monkeypatch.setattr("pipeline.stages.errors.untrained_methods", list)
    for stage, images in (("agreement", {40}), ("errors", range(2, 41))):
        computed.clear()
        assert end_of(stage) is None
        assert len(computed) == len(set(computed))
        assert len(computed) in images
        assert {"l_cam_fm", "l_cam_img"} <= set(pd.read_csv(f"reports/tables/{stage}.csv")["method"])


def test_a_run_that_a_learned_method_was_not_fitted_to_cannot_be_measured(explained, edit_params, end_of):
    short = {"epochs": 1, "images": 4, "runs": 1}
    changes = {"learned_explainers": ["l_cam_img"], "explainer.l_cam_img": short, "faithfulness.run": 1}
    edit_params(explained, changes)
    assert end_of("fit", DIGITS, "l_cam_img") is None
    message = end_of("maps", DIGITS)
    assert "faithfulness.run: l_cam_img has only 1 runs" in message
    assert "raise explainer.l_cam_img.runs" in message
