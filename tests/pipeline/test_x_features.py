"""The stage `x_features` on a small project."""

import pandas as pd
import pytest
from safetensors.torch import load_file, save_file


def test_x_features_of_every_run_and_class_and_none_without_xnn(explained, edit_params, end_of):
    edit_params(explained, {"learned_explainers": ["xnn"], "explainer.xnn.epochs": 2})
    assert end_of("fit", "painted_birds", "xnn") is None
    assert end_of("x_features") is None
    tables = explained / "reports/tables"
    classes, contributions = (pd.read_csv(tables / f"x_features{ending}.csv") for ending in ("", "_contributions"))
    assert classes.groupby("run")["class"].nunique().tolist() == [16, 16]
    assert (classes["faithful"] == (classes["r_squared"] >= 0.9)).all()
    assert (classes["n_x_features"] >= 1).all()
    faithful = set(classes.loc[classes["faithful"], ["run", "class"]].itertuples(index=False, name=None))
    assert set(contributions[["run", "class"]].itertuples(index=False, name=None)) == faithful
    picture = explained / "reports/figures/x_features/painted_birds.png"
    drawn, by_grad_cam = picture.stat().st_size, picture.read_bytes()
    few = {"x_features.heat_map": "i_gos", "explainer.i_gos": {"size": 4, "iterations": 1, "points": 2}}
    edit_params(explained, few)
    assert end_of("x_features") is None
    assert picture.read_bytes() != by_grad_cam
    edit_params(explained, {"learned_explainers": []})
    assert end_of("x_features") is None
    assert len(pd.read_csv(tables / "x_features.csv")) == 0
    assert picture.stat().st_size < drawn


@pytest.mark.parametrize("heat_map", ["grad_cam", "i_gos"])
def test_a_class_without_an_x_feature_in_use_is_in_the_table_and_named_in_the_picture(
    explained, edit_params, end_of, heat_map
):
    few = {"x_features.heat_map": heat_map, "explainer.i_gos": {"size": 4, "iterations": 1, "points": 2}}
    edit_params(explained, {"learned_explainers": ["xnn"], "explainer.xnn.epochs": 1} | few)
    assert end_of("fit", "painted_birds", "xnn") is None
    path = explained / "models/learned/painted_birds/xnn.safetensors"
    state = load_file(path)
    state["head.weight"][:] = 0
    save_file(state, path)
    assert end_of("x_features") is None
    classes = pd.read_csv(explained / "reports/tables/x_features.csv")
    assert (classes["n_x_features"] == 0).all()
    assert not classes["faithful"].any()
    assert (explained / "reports/figures/x_features/painted_birds.png").exists()
