"""The stages of the user study: the questionnaire of a small project, and the analysis of files of answers."""

import json
import os
import re

import numpy as np
import pandas as pd
import pytest
from participants import synthetic_answers

from bla.experiments.explanations.user_study.protocol import METHODS
from pipeline.run.settings import load_settings

COMPARED = {key: ["bla_t", "bla_t", "other", "equal"] for key in ("grad_cam", "l2x_f", "other_image")}


def save_answers(project, name, **changed):
    path = project / f"data/study/{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(synthetic_answers(name, COMPARED) | changed))
    return path


@pytest.fixture
def table(here):
    """`table("_tests")`: a table of the user study."""
    return lambda ending: pd.read_csv(here / f"reports/tables/user_study{ending}.csv")


@pytest.fixture
def answering(here, tmp_path):
    """The small project with a folder for answers of its own: the folder of the checkout is linked."""
    (here / "data/study/.gitignore").unlink()
    return here


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["empty", "missing"])
def test_without_answers_the_stage_succeeds_and_every_figure_is_written(answering, end_of, table, folder):
    if folder == "missing":
        (answering / "data/study").rmdir()
    assert end_of("study_answers") is None
    for ending in ("", "_tests", "_predictions", "_participants", "_excluded"):
        assert table(ending).empty
    figures = sorted(path.name for path in (answering / "reports/figures/user_study").iterdir())
    assert figures == ["figure10.png", "figure11.png", "figure4.png", "figure7.png", "figure8.png", "figure9.png"]


@pytest.mark.slow
def test_answers_become_tables_and_a_wrong_file_changes_nothing(answering, end_of, table, contents):
    for name in "abc":
        save_answers(answering, name)
    save_answers(answering, "d", comprehension={"choice": "grass", "seconds": 3})
    assert end_of("study_answers") is None
    shares = table("")
    assert shares.loc[shares["dataset"] == "all", "share"].tolist() == [0.5, 0.25, 0.25] * 3
    assert set(shares["n_persons"]) == {3}
    assert table("_excluded")["excluded"].tolist() == ["no", "no", "no", "yes"]
    before = contents(answering / "reports")
    save_answers(answering, "e", address="Main Street 1")
    message = end_of("study_answers")
    assert message.startswith("error in study_answers: data/study/e.json: address: extra inputs are not permitted")
    assert contents(answering / "reports") == before


@pytest.mark.slow
def test_hidden_files_are_no_answers_and_answers_under_another_name_are_not_left_out_in_silence(
    answering, end_of, table
):
    save_answers(answering, "a")
    (answering / "data/study/._a.json").write_bytes(b"\0\5\x16\7")  # macOS writes such files into archives
    assert end_of("study_answers") is None
    assert len(table("_excluded")) == 1
    for name in ("b.json.txt", "b.JSON", "more"):
        path = save_answers(answering, "b").rename(answering / f"data/study/{name}")
        assert end_of("study_answers").startswith(
            f"error in study_answers: data/study/{name}: not a .json file; rename it"
        )
        path.unlink()
    (answering / "data/study/more.json").mkdir()
    message = "data/study/more.json: not a .json file but a folder, pipe or broken link; move it out of the folder"
    assert message in end_of("study_answers")
    (answering / "data/study/more.json").rmdir()
    os.mkfifo(answering / "data/study/more.json")
    assert message in end_of("study_answers")
    (answering / "data/study/more.json").unlink()
    (answering / "data/study/more.json").symlink_to("nowhere")
    assert message in end_of("study_answers")


def data_of(path):
    page = path.read_text(encoding="utf-8")
    return json.loads(re.search(r'<script type="application/json" id="study">(.*?)</script>', page, re.DOTALL)[1])


@pytest.mark.slow
def test_the_questionnaire_shows_images_on_which_the_systems_agree(tmp_path, make_project, monkeypatch, end_of):
    changes = {"variants": ["l2x_f", "bla_t"], "dataset.painted_birds.images.differ_in": "beak"}
    changes |= {"dataset.painted_birds.images.test_images": 100, "dataset.painted_birds.training.epochs": 20}
    project = make_project(tmp_path, changes=changes)
    monkeypatch.chdir(project)
    monkeypatch.setenv("BLA_DEVICE", "cpu")
    for words in (("prepare",), ("backbone",), ("features",), ("baseline",), ("train_variant", "l2x_f"), ("train_variant", "bla_t")):  # fmt: skip
        assert end_of(words[0], "painted_birds", *words[1:]) is None
    assert end_of("study") is None
    page = project / "reports/study/questionnaire.html"
    (dataset,) = data_of(page)["datasets"]
    assert (dataset["name"], dataset["kind"], len(dataset["classes"])) == ("painted_birds", "painted_birds", 2)
    assert len(dataset["images"]) == 20
    for image in dataset["images"]:
        assert set(image["overlays"]) == set(image["masks"]) == set(METHODS)
    assert all(picture.startswith("data:image/jpeg;base64,") for picture in dataset["examples"])
    first = page.read_bytes()
    assert end_of("study") is None
    assert page.read_bytes() == first

    from pipeline.maps.study_images import study_dataset
    from pipeline.run.predictions import decided_classes

    decided = decided_classes("painted_birds", load_settings())
    for image in dataset["images"]:
        assert {classes[image["number"]] for classes in decided.values()} == {image["decided"]}
    shown = study_dataset("painted_birds", load_settings())
    cells = {tuple(map(tuple, of_image)) for of_image in shown.maps["bla_t"]}
    assert {tuple(map(tuple, of_image)) for of_image in shown.maps["other_image"]} == cells, (
        "every image lends its map once"
    )
    assert (shown.maps["l2x_f"].sum(axis=(1, 2)) == 8).all()
    assert np.isfinite(shown.maps["grad_cam"]).all()

    params = project / "params.yaml"
    text = params.read_text()
    params.write_text(text.replace("- l2x_f\n", "", 1))
    assert end_of("study") == "error in study: params.yaml: variants: the study compares bla_t with l2x_f; add l2x_f"
    assert page.read_bytes() == first


def test_no_image_lends_its_map_to_itself():
    from pipeline.maps.study_images import _others

    for count in (2, 3, 20):
        others = _others(count, np.random.default_rng(count))
        assert sorted(others) == list(range(count))
        assert (others != np.arange(count)).all()
