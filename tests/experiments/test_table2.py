"""Table 2: rank correlations with LIME, their means and tests against CAM, and its layout."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from bla.experiments.table2.tables import (
    correlations_with_lime,
    markdown,
    table_two,
    table_two_layout,
    table_two_tests,
    titles,
)
from bla.inference.paired import crossed

PUBLISHED = pd.read_csv(Path(__file__).parents[2] / "data/published_values.csv")
NAN = np.nan


def step_down(p: np.ndarray) -> np.ndarray:
    """Holm's correction, step by step from the smallest p."""
    result, largest = np.empty(len(p)), 0.0
    for place, number in enumerate(np.argsort(p)):
        largest = max(largest, min(1, p[number] * (len(p) - place)))
        result[number] = largest
    return result


CORRELATIONS = {
    "dogs": {
        "lime": np.array([[0.9, 0.8, 0.7, 0.9]]),
        "cam": np.array([[0.2, 0.4, NAN, 0.6], [0.4, 0.6, NAN, NAN]]),
        "bla_t": np.array([[0.5, 0.1, 0.3, NAN], [0.7, 0.3, NAN, NAN]]),
    },
    "digits": {"cam": np.array([[0.1, 0.3], [0.2, 0.6]]), "bla_t": np.array([[0.0, 0.2], [NAN, NAN]])},
}
KINDS = {"dogs": "stanford_dogs", "digits": "painted_birds"}


def cell(table: pd.DataFrame, dataset: str, method: str) -> pd.Series:
    (found,) = table.query("dataset == @dataset and method == @method").to_dict("records")
    return found


def test_table_two_counts_constant_maps_as_0():
    table = table_two(CORRELATIONS, KINDS, PUBLISHED, "zero", {}, {})
    assert table[["dataset", "method"]].to_numpy().tolist() == [
        ["dogs", "lime"], ["dogs", "cam"], ["dogs", "bla_t"], ["digits", "cam"], ["digits", "bla_t"]
    ]  # fmt: skip
    row = cell(table, "dogs", "cam")
    images, runs = [0.3, 0.5, 0, 0.3], [1.2 / 4, 1.0 / 4]
    assert (row["n_images"], row["n_runs"]) == (4, 2)
    assert row["mean"] == pytest.approx(1.1 / 4)
    assert row["standard_error"] == pytest.approx(stats.sem(images))
    assert row["standard_error_runs"] == pytest.approx(stats.sem(runs))
    assert row["constant"] == 3 / 8
    assert cell(table, "digits", "bla_t")["mean"] == pytest.approx(0.05)


def test_table_two_leaves_constant_maps_out():
    table = table_two(CORRELATIONS, KINDS, PUBLISHED, "leave_out", {}, {})
    row = cell(table, "dogs", "cam")
    images, runs = [0.3, 0.5, 0.6], [0.4, 0.5]
    assert (row["n_images"], row["n_runs"]) == (3, 2)
    assert row["mean"] == pytest.approx(np.mean(images))
    assert row["standard_error"] == pytest.approx(stats.sem(images))
    assert row["standard_error_runs"] == pytest.approx(stats.sem(runs))
    assert row["constant"] == 3 / 8
    digits = cell(table, "digits", "bla_t")  # one run has no map at all
    assert (digits["n_images"], digits["n_runs"], digits["mean"]) == (2, 1, pytest.approx(0.1))
    assert np.isnan(digits["standard_error_runs"])


def test_published_values_are_beside_the_papers_methods_on_its_datasets():
    table = table_two(CORRELATIONS, KINDS, PUBLISHED, "zero", {}, {})
    assert (cell(table, "dogs", "cam")["paper"], cell(table, "dogs", "bla_t")["paper"]) == (0.33, 0.47)
    assert table.loc[(table["dataset"] == "digits") | (table["method"] == "lime"), "paper"].isna().all()


def test_one_run_has_no_standard_error():
    assert np.isnan(
        cell(table_two(CORRELATIONS, KINDS, PUBLISHED, "zero", {}, {}), "dogs", "lime")["standard_error_runs"]
    )


def test_the_layout_of_table_two():
    table = table_two(CORRELATIONS, KINDS, PUBLISHED, "zero", {}, {})
    layout = table_two_layout(table, {"cam": "CAM", "lime": "LIME again"})
    assert layout.columns.tolist() == ["Rank correlation with LIME", "LIME again", "CAM", "bla_t"]
    error = stats.sem([0.3, 0.5, 0, 0.3])
    assert layout.iloc[0, 0] == "dogs (n = 4)"
    assert layout.iloc[0]["CAM"] == f"0.28 ± {error:.2f}" == "0.28 ± 0.10"
    assert layout.iloc[1].tolist() == ["dogs, paper", "–", "0.33", "0.47"]
    assert layout.iloc[2].tolist()[:2] == ["digits (n = 2)", "–"]
    assert len(layout) == 3


def random_correlations(runs: int = 3, images: int = 12) -> dict[str, dict[str, np.ndarray]]:
    rng = np.random.default_rng(1)
    return {
        name: {m: rng.normal(k / 5, 0.3, (runs, images)) for k, m in enumerate(("lime", "cam", "bla", "bla_t"))}
        for name in ("a", "b")
    }


def test_every_method_of_table_two_is_tested_against_cam():
    correlations = random_correlations()
    table = table_two_tests(correlations, "zero")
    assert table[["dataset", "method"]].to_numpy().tolist() == [[d, m] for d in "ab" for m in ("lime", "bla", "bla_t")]
    assert set(table["against"]) == {"cam"}
    for row in table.itertuples():
        own, cam = (correlations[row.dataset][m].mean(axis=0) for m in (row.method, "cam"))
        ranks = stats.rankdata(np.abs(own - cam))
        effect = (ranks * np.sign(own - cam)).sum() / ranks.sum()
        assert row.mean_difference == pytest.approx((own - cam).mean())
        assert row.p == pytest.approx(stats.wilcoxon(own, cam, method="exact").pvalue)
        assert row.rank_biserial == pytest.approx(effect)
        assert row.n_images == row.nonzero_pairs == 12
        assert row.runs_images_low < row.mean_difference < row.runs_images_high
        difference = correlations[row.dataset][row.method] - correlations[row.dataset]["cam"]
        (alone,) = crossed(difference[None])
        assert (row.runs_images_low, row.runs_images_high) == (pytest.approx(alone.low), pytest.approx(alone.high))
    for _, group in table.groupby("dataset"):
        np.testing.assert_allclose(group["p_holm"], step_down(group["p"].to_numpy()))
        np.testing.assert_allclose(group["p_holm_smallest"], 3 * 2 / 2**12)


def test_without_constant_maps_table_two_is_tested_on_images_with_both_correlations():
    (row,) = table_two_tests({"dogs": {k: CORRELATIONS["dogs"][k] for k in ("cam", "bla_t")}}, "leave_out").to_dict("records")  # fmt: skip
    assert row["n_images"] == 2
    assert row["mean_difference"] == pytest.approx(np.mean([0.3, -0.3]))
    assert np.isnan(row["runs_images_low"])
    assert np.isnan(row["runs_images_high"])
    (row,) = table_two_tests({"dogs": {k: CORRELATIONS["dogs"][k] for k in ("cam", "bla_t")}}, "zero").to_dict("records")  # fmt: skip
    assert row["n_images"] == 4
    assert row["mean_difference"] == pytest.approx(np.mean([0.3, -0.3, 0.15, -0.3]))
    assert row["runs_images_low"] <= row["mean_difference"] <= row["runs_images_high"]


@pytest.mark.parametrize(
    ("of_dataset", "of_variant", "told"),
    [
        ([], [], []),
        (["LIME of 2 images (paper: of all 4)"], [], ["dogs, CAM, BLA-T: LIME of 2 images (paper: of all 4)."]),
        ([], ["BLA-T: temperature 3.7 (paper: 0.1)"], ["dogs, BLA-T: BLA-T: temperature 3.7 (paper: 0.1)."]),
        (["epochs 3"], ["x 1"], ["dogs, CAM: epochs 3.", "dogs, BLA-T: epochs 3, x 1."]),
    ],
)
def test_table_two_says_how_settings_differ_from_those_of_the_papers_values(of_dataset, of_variant, told):
    departing = {"dogs": of_dataset, "digits": ["not the paper's"]}, {"bla_t": of_variant}
    table = table_two(CORRELATIONS, KINDS, PUBLISHED, "zero", *departing)
    assert cell(table, "dogs", "cam")["paper"] == 0.33
    text = markdown(table, titles({"cam": "CAM", "bla_t": "BLA-T"}, ["bla_t"]), "zero")
    assert [part in text for part in told] == [True] * len(told)
    assert text.count("Not the paper's settings: ") == len(told)


def test_there_is_a_correlation_with_lime_for_each_run_and_image():
    rng = np.random.default_rng(2)
    lime, own = rng.normal(size=(2, 3, 16)), rng.normal(size=(2, 3, 16))
    own[1, 2] = 0.25
    found = correlations_with_lime(lime, {"cam": own})["cam"]
    for run, image in ((0, 0), (1, 1)):
        assert found[run, image] == pytest.approx(stats.spearmanr(own[run, image], lime[run, image]).statistic)
    assert np.isnan(found).tolist() == [[False] * 3, [False, False, True]]


@pytest.mark.parametrize(("constant_maps", "rule"), [("zero", "ρ = 0"), ("leave_out", "left out")])
def test_markdown_explains_constant_maps_and_uses_the_titles_of_methods(constant_maps, rule):
    shown = titles({"cam": "CAM", "bla_t": "BLA-T"}, ["bla_t"])
    assert shown["bla_t_after_threshold"] == "BLA-T (after threshold)"
    text = markdown(table_two(CORRELATIONS, KINDS, PUBLISHED, constant_maps, {}, {}), shown, constant_maps)
    assert rule in text
    for title in ("CAM", "BLA-T", "LIME again"):
        assert f"| {title}" in text


def test_a_classifier_without_cam_has_means_and_no_tests():
    correlations = CORRELATIONS | {"own": {"lime": np.array([[0.9, 0.7]]), "bla_t": np.array([[0.5, 0.1], [0.3, 0.5]])}}
    table = table_two(correlations, KINDS | {"own": "image_table"}, PUBLISHED, "zero", {}, {})
    assert cell(table, "own", "bla_t")["mean"] == pytest.approx(0.35)
    assert set(table_two_tests(correlations, "zero")["dataset"]) == {"dogs", "digits"}
    assert table_two_tests({"own": correlations["own"]}, "zero").empty


def test_lime_of_one_run_is_compared_with_the_maps_of_every_run():
    rng = np.random.default_rng(3)
    lime, own = rng.normal(size=(1, 3, 16)), rng.normal(size=(2, 3, 16))
    found = correlations_with_lime(lime, {"bla_t": own})["bla_t"]
    assert found[1, 2] == pytest.approx(stats.spearmanr(own[1, 2], lime[0, 2]).statistic)
