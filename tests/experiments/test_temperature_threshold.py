"""Temperature and threshold: settings against `train` and `evaluate`, dead runs, means and tests against scipy."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from statsmodels.stats.multitest import multipletests

from bla.base.specs import BoundedLogits, Schedule
from bla.experiments.temperature_threshold.experiment import MEASURES, RUN, SETTING, grid, measure
from bla.experiments.temperature_threshold.figures import PANELS, heat_maps
from bla.experiments.temperature_threshold.tables import differences, summary
from bla.method.evaluation import evaluate
from bla.method.initialisation import initial_head
from bla.method.training import train
from bla.metrics.localisation import overlap

SEEDS, SCHEDULE = [1, 2, 3], Schedule(batch_size=8, epochs=2, learning_rate=0.01, dropout=0.2, adam_epsilon=1e-7)
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def data():
    torch.manual_seed(0)
    train_set = torch.randn(1, 40, 9, 6).half(), torch.arange(40) % 2
    return train_set, (torch.randn(20, 9, 6).half(), torch.arange(20) % 2)


def measured(data, variant, coverage=None):
    return measure(*data, coverage, [variant], initial_head(SEEDS, 6, 2), SEEDS, SCHEDULE)[0]


def runs_of(settings, count, dataset="d"):
    rows = [
        {"dataset": dataset} | dict(zip(SETTING, setting, strict=True)) | {"run": r, "n_images": 50, "died": died}
        | dict(zip(MEASURES, RNG.random(6), strict=True))
        for setting in settings for r, died in zip(range(count), ("", "cut", "bound", "", "cut", "", "", ""), strict=False)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_the_grid_has_every_combination_once():
    found = grid([0.1, 1], [0, 0.98, 2], ["subtract", "renormalise"])
    assert len(set(found)) == 12
    assert {(v.temperature, v.threshold_factor, v.threshold_rule) for v in found} >= {
        (1, 2, "renormalise"),
        (0.1, 0, "subtract"),
    }
    assert {v.head for v in found} == {"trained"}


def test_a_setting_agrees_with_train_and_evaluate(data):
    (variant,) = grid([0.5], [0.9], ["subtract"])
    coverage = RNG.random((20, 9))
    table = measured(data, variant, coverage)
    trained = train(*data[0], variant, initial_head(SEEDS, 6, 2), SEEDS, SCHEDULE, SCHEDULE.epochs)
    result = evaluate(*data[1], variant, trained, SEEDS)
    hard = result.explained.hard.numpy()
    assert table[["run", "n_images"]].to_numpy().tolist() == [[0, 20], [1, 20], [2, 20]]
    np.testing.assert_allclose(table["accuracy"], result.correct.double().mean(1))
    np.testing.assert_allclose(table["loss"], result.loss.double().mean(1))
    np.testing.assert_allclose(table["explanation_size"], hard.sum(2).mean(1))
    for run in range(3):
        by_hand = [values.mean() for values in overlap(hard[run], coverage)]
        np.testing.assert_allclose(table.loc[run, ["iou", "precision", "recall"]].astype(float), by_hand)
    assert (table[SETTING] == ["subtract", 0.5, 0.9]).all(axis=None)
    assert set(RUN) - set(table) == {"dataset"}


def test_without_masks_there_is_no_overlap(data):
    table = measured(data, grid([0.5], [0.9], ["subtract"])[0])
    assert table[["iou", "precision", "recall"]].isna().all(axis=None)


def test_runs_with_a_threshold_above_every_weight_count_as_dead_by_cutting(data):
    (variant,) = grid([0.01], [9], ["subtract"])  # a weight cannot exceed 9 / 9
    table = measured(data, variant)
    assert table["share_without_weight"].tolist() == [1, 1, 1]
    assert table["died"].tolist() == ["cut"] * 3


def test_runs_with_all_cells_at_the_bound_count_as_dead_at_the_bound(data):
    """Equal cells get no gradient, so the sign of the initial score decides whether all cells are at the bound."""
    like = [(torch.ones_like(features), labels) for features, labels in data]
    (variant,) = grid([0.1], [0], ["subtract"])
    (table,) = measure(*like, None, [variant], initial_head(range(12), 6, 2), range(12), SCHEDULE)
    assert set(table["share_at_bound"]) == {0, 1}
    assert table["died"].tolist() == ["bound" if share else "" for share in table["share_at_bound"]]
    assert (table["explanation_size"] == 9).all()


def test_every_setting_uses_the_same_random_numbers(data):
    """Without a threshold, the threshold rule has no effect."""
    subtract, renormalise = (measured(data, v) for v in grid([0.5], [0], ["subtract", "renormalise"]))
    pd.testing.assert_frame_equal(subtract.drop(columns="threshold_rule"), renormalise.drop(columns="threshold_rule"))


def test_means_standard_errors_and_deaths_by_setting():
    runs = runs_of([("subtract", 0.1, 0.0), ("subtract", 0.1, 0.98)], 5)
    table = summary(runs)
    assert table["n_runs"].tolist() == [5, 5]
    assert table[["died_bound", "died_cut"]].to_numpy().tolist() == [[1, 2], [1, 2]]
    first = runs[runs["threshold_factor"] == 0]
    for name in MEASURES:
        assert table.loc[0, name] == pytest.approx(first[name].mean())
        assert table.loc[0, f"{name}_standard_error"] == pytest.approx(first[name].sem())


def test_settings_are_compared_with_the_reference_run_by_run():
    runs = runs_of([("subtract", 0.1, 0.98), ("subtract", 1.0, 0.98), ("indicator", 0.1, 0.0)], 8)
    shuffled = runs.sample(frac=1, random_state=0)
    reference = BoundedLogits(
        explanation="bounded_logits", head="trained", temperature=0.1, threshold_factor=0.98, threshold_rule="subtract"
    )
    table = differences(shuffled, reference)
    assert len(table) == 2 * 4
    row = table.query("temperature == 1 and measure == 'loss'").iloc[0]
    base, other = (
        runs.query(f"threshold_rule == 'subtract' and temperature == {t}")["loss"].to_numpy() for t in (0.1, 1)
    )
    assert row["difference"] == pytest.approx((other - base).mean())
    assert row["p"] == pytest.approx(stats.wilcoxon(other, base).pvalue)
    assert row["low"] <= row["difference"] <= row["high"]
    for _, family in table.groupby("measure"):
        assert family["p_holm"].tolist() == pytest.approx(multipletests(family["p"], method="holm")[1])
    assert table["p_holm_smallest"].tolist() == [2 * 2 / 2**8] * 8


def test_a_grid_without_the_reference_setting_has_no_tests():
    reference = BoundedLogits(
        explanation="bounded_logits", head="trained", temperature=0.3, threshold_factor=0.98, threshold_rule="subtract"
    )
    assert differences(runs_of([("subtract", 0.1, 0.98)], 3), reference).empty
    assert differences(pd.DataFrame(columns=["dataset", *SETTING]), reference).empty


@pytest.mark.slow
def test_the_heat_maps_show_every_setting_and_how_many_runs_died():
    settings = [(rule, t, f) for rule in ("subtract", "renormalise") for t in (0.1, 1.0) for f in (0.0, 0.98, 1.2)]
    table = summary(runs_of(settings, 5))
    figure = heat_maps(table)
    panels = [axis for axis in figure.axes if axis.get_xlabel() == "threshold · n"]
    assert len(panels) == 2 * len(PANELS)
    own = table[table["threshold_rule"] == "subtract"].sort_values(["temperature", "threshold_factor"])
    np.testing.assert_allclose(np.asarray(panels[0].collections[0].get_array()).ravel(), own["accuracy"])
    told = [text.get_text() for text in panels[0].texts]
    assert told[0].startswith(f"{own['accuracy'].iloc[0]:.3f} †1 ×2")
    assert len(told) == 6
    assert "n = 5 runs, 50 images" in panels[0].get_title()


@pytest.mark.filterwarnings("error")
def test_without_masks_the_overlap_panel_is_empty():
    runs = runs_of([("subtract", 0.1, 0.98), ("subtract", 0.1, 1.2)], 3).assign(iou=np.nan)
    *_, last = heat_maps(summary(runs)).axes[:4]
    assert last.get_title().startswith(PANELS["iou"][0])
    assert "no masks" in last.get_title()
    assert not last.axison


def test_the_heat_maps_name_the_setting_if_nothing_ran():
    figure = heat_maps(summary(pd.DataFrame(columns=["dataset", *SETTING, "died"])))
    assert "temperature_threshold.datasets" in figure.get_suptitle()
