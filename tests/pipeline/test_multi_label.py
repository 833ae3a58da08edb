"""The stages of datasets with several classes an image, on a small flock."""

import numpy as np
import pandas as pd
import pytest
import torch

from bla.explainers.learned.l_cam_fm import LCamFm
from pipeline.maps import multi_label_masks

FLOCK = "painted_flock"


@pytest.mark.slow
def test_the_stages_give_tables_and_pictures_of_every_method_and_control(here, end_of, edit_params):
    edit_params(here, {"multi_label.images": 6})
    for stage in ("prepare", "features", "head"):
        assert end_of(f"multi_label_{stage}", FLOCK) is None
    assert end_of("multi_label_fit", FLOCK, "explainer_network") is None
    assert end_of("multi_label_faithfulness") is None
    assert not (here / "data/images").exists()  # nothing lies where the stages of other datasets look
    labels = np.load(here / f"data/multi_label/images/{FLOCK}/train_labels.npy")
    assert (labels.sum(axis=1) == 0).any()  # an image without a class is trained on
    tables = here / "reports/tables"
    table = pd.read_csv(tables / "multi_label.csv", dtype={"method": str})
    assert list(table["method"].unique()) == ["grad_cam", "explainer_network", "0", "0.5", "1", "perfect"]
    perfect = table[table["method"] == "perfect"].set_index("metric")["mean"]
    assert perfect[["f1", "iou", "auc"]].tolist() == [1, 1, 1]
    assert table["n"].le(6).all()
    specificity = pd.read_csv(tables / "multi_label_specificity.csv")
    assert set(specificity["method"]) == {"grad_cam", "explainer_network", "perfect"}
    assert len(specificity) == 3 * 4 * 5
    assert specificity["published"].isna().all()
    whole = specificity[specificity["mask_class"] == "none"].groupby("true_class")["value"]
    assert (whole.max() - whole.min()).max() < 1e-4  # without a mask all methods are the same
    objectives = pd.read_csv(tables / "multi_label_objectives.csv")
    assert objectives["run"].tolist() == [0, 1]
    assert pd.read_csv(tables / "multi_label_classes.csv")["n_train"].tolist() == labels.sum(axis=0).tolist()
    assert set(pd.read_csv(tables / "multi_label_metrics.csv")["name"]) == set(table["metric"])
    compared = pd.read_csv(tables / "multi_label_tests.csv", dtype={"method": str, "against": str})
    assert set(zip(compared["method"], compared["against"], strict=True)) == {
        *((method, constant) for method in ("grad_cam", "explainer_network") for constant in ("0", "0.5", "1")),
        ("explainer_network", "grad_cam"),
    }
    drawn = {path.name for path in (here / "reports/figures/multi_label").iterdir()}
    assert drawn == {f"{FLOCK}.png", f"{FLOCK}_specificity.png"}


def test_a_method_trained_only_if_its_objective_is_lower_by_more_than_rounding(monkeypatch):
    method = object.__new__(LCamFm)
    for value, trained in ((2 - 2.0**-18, True), (2 - 2.0**-22, False), (2, False), (3, False)):
        monkeypatch.setattr(LCamFm, "objective", lambda self, data, seeds, v=value: torch.tensor([[v, 2]], dtype=float))
        (row,) = multi_label_masks._objectives("l_cam_fm", [method], None)
        assert row == {
            "method": "l_cam_fm",
            "run": 0,
            "objective": value,
            "objective_of_constant": 2,
            "trained": trained,
        }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"multi_label.datasets": ["painted_birds"]}, "multi_label.datasets: images of painted_birds have one class each"),
        ({"multi_label.datasets": []}, "multi_label.datasets: list should have at least 1 item"),
        ({"multi_label.datasets": ["flock"]}, "multi_label.datasets: there is no flock under `dataset`"),
        ({"multi_label.explainers": ["gradcam"]}, "multi_label.explainers: there is no gradcam under"),
        ({"multi_label.explainers": ["explainer_network"]}, "multi_label.explainers: explainer_network must be fitted; list it under multi_label.learned"),
        ({"multi_label.learned_explainers": ["grad_cam"]}, "multi_label.learned_explainers: grad_cam does not learn"),
        ({f"dataset.{FLOCK}.images.birds": [3, 1]}, "images.birds: needs the smallest and then the largest number"),
        ({f"dataset.{FLOCK}.images.species": 2}, "images.birds: 3 birds of different species need more than 2 species"),
        ({f"dataset.{FLOCK}.images.bird_size": [0.5, 0.3]}, "images.bird_size: needs the smallest"),
    ],
)  # fmt: skip
def test_wrong_settings_are_one_message(changes, message, here, end_of, edit_params):
    edit_params(here, changes)
    found = end_of("settings")
    assert message in found
    assert found.count("\n") == 0
