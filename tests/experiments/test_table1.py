"""Table 1: means, standard errors, marks, and the paper's values beside ours; Figure 3."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bla.base.paper import COLUMNS
from bla.experiments.table1.figures import figure_three, table_one_chart
from bla.experiments.table1.tables import layout, markdown, note, table_one, title
from bla.plotting.style import save_figure

PUBLISHED = pd.read_csv(Path(__file__).parents[2] / "data/published_values.csv")
RUNS = pd.DataFrame(
    [
        {
            "dataset": "d",
            "variant": v,
            "run": r,
            "accuracy": a + r / 100,
            "loss": 1 - a,
            "n_cells": 49,
            "explanation_size": s,
        }
        for v, a, s in (("bl", 0.9, None), ("bla", 0.8, 7.0), ("bla_hot", 0.7, 8.0))
        for r in (0, 2)
    ]
)
TESTS = pd.DataFrame(
    [
        {
            "dataset": "d",
            "measure": "accuracy",
            "variant": "bla",
            "against": "bl",
            "to_the_left": False,
            "p": 0.05,
            "n_runs": 20,
        },
        {
            "dataset": "d",
            "measure": "accuracy",
            "variant": "bla_hot",
            "against": "bl",
            "to_the_left": False,
            "p": 0.04,
            "n_runs": 20,
        },
        {
            "dataset": "d",
            "measure": "accuracy",
            "variant": "bla_hot",
            "against": "bla",
            "to_the_left": True,
            "p": 0.5,
            "n_runs": 20,
        },
        {
            "dataset": "d",
            "measure": "loss",
            "variant": "bla",
            "against": "bl_plus",
            "to_the_left": False,
            "p": 0.9,
            "n_runs": 20,
        },
    ]
)


def rows(kind: str = "image_folder") -> pd.DataFrame:
    return table_one(RUNS, TESTS, {"d": kind}, PUBLISHED, 0.05, {}, {}).set_index(["variant", "measure"])


@pytest.mark.parametrize(
    ("sizes", "count", "text"),
    [
        ([7.0, 9.0], 0, None),
        ([49.0, 9.0], 1, "explain nothing: 1 of 2 runs of BLA on d."),
        ([49.0, 49.0], 2, "explain nothing: 2 of 2 runs of BLA on d."),
        ([48.998, 9.0], 1, "explain nothing: 1 of 2 runs of BLA on d."),  # one image of 500 lacks a cell
        ([48.5, 9.0], 0, None),
    ],
)
def test_runs_whose_module_keeps_every_cell_are_counted(sizes, count, text):
    runs = RUNS.copy()
    runs.loc[runs["variant"] == "bla", "explanation_size"] = sizes
    table = table_one(runs, TESTS, {"d": "image_folder"}, PUBLISHED, 0.05, {}, {})
    found = table.set_index(["variant", "measure"])["runs_that_keep_all"]
    assert found["bla", "explanation_size"] == count
    assert np.isnan(found["bla", "accuracy"])
    assert ("explain nothing" in note(table, 0.05)) == bool(text)
    assert (text or "") in note(table, 0.05)


def test_means_and_standard_errors_by_hand():
    row = rows().loc["bla", "accuracy"]
    assert row["mean"] == pytest.approx(0.81)
    assert row["standard_error"] == pytest.approx(0.01)
    assert row["n_runs"] == 2


def test_marks_follow_the_papers_definition():
    marks = rows()["mark"]
    assert marks["bla", "accuracy"] == "†"
    assert marks["bla_hot", "accuracy"] == "∗"
    assert marks["bla", "loss"] == ""  # BL+ has no marks


@pytest.mark.parametrize(("runs", "marks"), [(2, False), (5, False), (6, True), (20, True)])
def test_no_difference_is_marked_if_no_difference_could_be_significant(runs, marks):
    table = table_one(RUNS, TESTS.assign(n_runs=runs), {"d": "image_folder"}, PUBLISHED, 0.05, {}, {})
    assert table["mark"].ne("").any() == marks
    assert ("No marks for d" in note(table.assign(n_runs=runs), 0.05)) != marks
    assert ("No marks for d" in " ".join(markdown(table.assign(n_runs=runs), 0.05).split())) != marks


def test_the_baseline_has_no_explanation_size():
    assert ("bl", "explanation_size") not in rows().index
    assert "–" in layout(rows().reset_index())[2]["BL"].tolist()


def test_the_papers_values_are_beside_ours_only_on_the_papers_dataset():
    assert rows()["paper"].isna().all()
    row = rows("cats_vs_dogs").loc["bla", "accuracy"]
    assert (row["paper"], row["paper_standard_error"]) == (0.9902, 0.0002)
    assert row["z"] == pytest.approx((0.81 - 0.9902) / (0.01**2 + 0.0002**2) ** 0.5)
    assert "d, paper (n = 20)" in markdown(rows("cats_vs_dogs").reset_index(), 0.05)


@pytest.mark.parametrize(
    ("of_dataset", "of_variant", "compared", "told"),
    [
        ([], [], {"bl", "bla"}, []),
        (["epochs 3 (paper: 5)"], [], set(), ["d, BL, BLA: epochs 3 (paper: 5)."]),
        (["5 runs (paper: 20)", "alpha 0.1 (paper: 0.05)"], [], set(), ["d, BL, BLA: 5 runs (paper: 20), alpha 0.1 (paper: 0.05)."]),
        ([], ["BLA: temperature 3.7 (paper: 0.1)"], {"bl"}, ["d, BLA: BLA: temperature 3.7 (paper: 0.1)."]),
        (["epochs 3"], ["BLA: k 3"], set(), ["d, BL: epochs 3.", "d, BLA: epochs 3, BLA: k 3."]),
    ],
)  # fmt: skip
def test_the_papers_values_are_beside_ours_only_where_settings_agree(of_dataset, of_variant, compared, told):
    departing = {"d": of_dataset}, {"bla": of_variant, "bla_t": ["BLA-T: not in the table"]}
    table = table_one(RUNS, TESTS, {"d": "caltech_birds"}, PUBLISHED, 0.05, *departing)
    assert set(table.loc[table["paper"].notna(), "variant"]) == compared
    assert set(table.loc[table["z"].notna(), "variant"]) == compared
    text = " ".join(markdown(table, 0.05).split())
    assert ("d, paper (n = 20)" in text) == bool(compared)
    assert [part in text for part in told] == [True] * len(told)
    assert text.count("Not compared with the paper: ") == len(told)


def test_departures_on_other_datasets_are_none():
    table = table_one(RUNS, TESTS, {"d": "image_folder"}, PUBLISHED, 0.05, {"d": []}, {"bla": ["BLA: temperature 3.7"]})
    assert table["departures"].eq("").all()


@pytest.mark.parametrize(
    ("variant", "published"),
    [
        ("bla_ph", (0.6650, 0.0062)),
        ("bla_ph_released", (0.6650, 0.0062)),
        ("bla_ph_reloaded", (0.6650, 0.0062)),
        ("bla_t_renormalise", (0.6801, 0.0006)),
        ("bla_t_indicator", (0.6801, 0.0006)),
    ],
)
def test_every_reading_of_a_column_is_beside_the_published_value(variant, published):
    runs = RUNS.replace({"variant": {"bla": variant}})
    table = table_one(runs, TESTS, {"d": "caltech_birds"}, PUBLISHED, 0.05, {}, {})
    row = table.set_index(["variant", "measure"]).loc[variant, "accuracy"]
    assert (row["paper"], row["paper_standard_error"]) == published
    accuracy = layout(table)[0]
    assert accuracy[title(variant)].tolist() == [
        "0.8100 ± 0.0100",
        f"{published[0]:.4f} ± {published[1]:.4f} (z = {row['z']:+.1f})",
    ]
    assert title(variant) == COLUMNS[variant]


@pytest.mark.parametrize("variant", ["bl_plus", "bla_hot"])
def test_a_column_that_is_not_in_the_paper_has_no_published_value(variant):
    runs = RUNS.replace({"variant": {"bla_hot": variant}})
    table = table_one(runs, TESTS, {"d": "caltech_birds"}, PUBLISHED, 0.05, {}, {})
    assert table.loc[table["variant"] == variant, ["paper", "z"]].isna().all(axis=None)
    assert layout(table)[0][title(variant)].tolist()[1] == "–"


def test_a_user_defined_column_is_titled_by_its_key():
    text = markdown(rows().reset_index(), 0.05)
    assert "bla_hot" in text
    assert "| d (n = 2) | 0.9100 ± 0.0100 | 0.8100 ± 0.0100† | 0.7100 ± 0.0100∗ |" in " ".join(text.split()).replace(
        "  ", " "
    )


# Figure 3

FIVE_RUNS = pd.DataFrame(
    [
        {"dataset": d, "variant": v, "run": r, "accuracy": 0.9 - i / 50 + r / 1000, "loss": 0.3 + i / 10 + r / 100}
        for d in ("a", "b")
        for i, v in enumerate(("bl", "bla", "bla_hot", "bl_plus"))
        for r in range(5)
    ]
)


def test_figure_three_shows_every_run_and_the_median_of_bl():
    figure = figure_three(FIVE_RUNS)
    assert len(figure.axes) == 4
    for axis, (dataset, measure) in zip(figure.axes, [("a", 0), ("b", 0), ("a", 1), ("b", 1)], strict=True):
        own = FIVE_RUNS[(FIVE_RUNS["dataset"] == dataset) & (FIVE_RUNS["variant"] != "bl")]
        values = 1 - own["accuracy"] if measure == 0 else own["loss"]
        dots = np.concatenate(
            [np.asarray(c.get_offsets())[:, 1] for c in axis.collections if len(c.get_offsets()) == 5]
        )
        np.testing.assert_allclose(np.sort(dots), np.sort(values))
        bl = FIVE_RUNS[(FIVE_RUNS["dataset"] == dataset) & (FIVE_RUNS["variant"] == "bl")]
        median = (1 - bl["accuracy"] if measure == 0 else bl["loss"]).median()
        assert any(line.get_linestyle() == "--" and np.allclose(line.get_ydata(), median) for line in axis.lines)
        assert "n = 5 runs" in axis.get_title()
        assert [tick.get_text() for tick in axis.get_xticklabels()] == ["BLA", "bla_hot", "BL+"]


@pytest.mark.parametrize("kind", ["svg", "png"])
def test_equal_figures_have_equal_bytes(kind, tmp_path):
    for number in range(2):
        save_figure(figure_three(FIVE_RUNS), tmp_path / f"{number}.{kind}", kind)
    assert (tmp_path / f"0.{kind}").read_bytes() == (tmp_path / f"1.{kind}").read_bytes()


def test_an_own_classifier_has_one_value_and_its_dataset_no_marks():
    runs = RUNS[(RUNS["variant"] != "bl") | (RUNS["run"] == 0)]
    table = table_one(runs, TESTS, {"d": "image_folder"}, PUBLISHED, 0.05, {}, {})
    of_bl = table.query("variant == 'bl' and measure == 'accuracy'").iloc[0]
    assert of_bl["n_runs"] == 1
    assert np.isnan(of_bl["standard_error"])
    assert (table["mark"] == "").all()
    text = markdown(table, 0.05)
    assert "d (n = 2; BL n = 1)" in text
    (accuracies,) = (line for line in text.splitlines() if f"| {of_bl['mean']:.4f} " in line)
    assert accuracies.count("±") == len(set(table.query("measure == 'accuracy'")["variant"])) - 1
    assert "BL of d is a classifier of your own" in " ".join(text.split())
    assert "No marks for" not in text
    table_one_chart(table)
    assert "your own" not in markdown(table_one(RUNS, TESTS, {"d": "image_folder"}, PUBLISHED, 0.05, {}, {}), 0.05)
