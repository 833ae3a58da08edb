"""The effects of unstated choices against hand-computed values and scipy."""

from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from bla.base import paper
from bla.base.errors import BlaError
from bla.base.specs import Backbone, Schedule
from bla.experiments.unstated_choices.experiment import (
    COLUMNS,
    RUN,
    STOCHASTIC_DEPTHS,
    measure,
    preparations,
)
from bla.experiments.unstated_choices.figures import choices
from bla.experiments.unstated_choices.tables import CHOICES, MEASURES, cells, effects
from bla.method.evaluation import evaluate
from bla.method.initialisation import initial_head
from bla.method.training import train
from bla.networks.backbones import STATISTICS
from bla.plotting.style import save_figure
from bla.runtime.seeds import derive_seed
from pipeline.stages import unstated_choices as stage

NORMALISATIONS = ("as_trained", "keras_2021")
PREPARATIONS = list(product(NORMALISATIONS, STOCHASTIC_DEPTHS))
KEYS = ["dataset", "choice", "other", "column", "setting", "measure"]


def table(accuracy, dataset="d", loss=None, size=None):
    """Runs from `accuracy[column, normalisation, stochastic depth]`, a list with one value per run; loss and size likewise."""
    rows = []
    for (column, normalisation, depth), values in accuracy.items():
        place = {
            "dataset": dataset,
            "normalisation": normalisation,
            "stochastic_depth": depth,
            "draws": 5 if depth else 1,
        }
        for run, value in enumerate(values):
            row = place | {"column": column, "run": run, "accuracy": value}
            row["loss"] = loss[column, normalisation, depth][run] if loss else 1 - value
            rows.append(row | {"explanation_size": size[column, normalisation, depth][run] if size else np.nan})
    return pd.DataFrame(rows)


def noise(seed, runs=6):
    """Random runs of every column with every preparation; the baselines have no explanations."""
    rng = np.random.default_rng(seed)
    keys = [(column, *preparation) for column in COLUMNS for preparation in PREPARATIONS]
    values = [{key: rng.random(runs) for key in keys} for _ in MEASURES]
    values[2] |= {key: np.full(runs, np.nan) for key in keys if key[0] in ("bl", "bl_plus")}
    return table(values[0], f"d{seed}", *values[1:])


@cache
def small():
    """The table of effects of the runs `SMALL`."""
    return effects(table(SMALL))


@pytest.fixture(scope="module")
def measured():
    """Random runs, and their table of effects."""
    runs = noise(1)
    return runs, effects(runs)


def rows(result, choice, measure="accuracy", **where):
    """The rows of one choice and measure by setting, from a table of effects."""
    own = result.query("choice == @choice and measure == @measure")
    for column, value in where.items():
        own = own[own[column] == value]
    return own.set_index("setting")


SMALL = {  # BL's accuracies; two runs
    ("bl", "as_trained", 0.0): [0.90, 0.80],
    ("bl", "as_trained", 0.2): [0.88, 0.79],
    ("bl", "keras_2021", 0.0): [0.85, 0.77],
    ("bl", "keras_2021", 0.2): [0.83, 0.70],
}
SMALL |= {("bl_plus", *key[1:]): [values[0] + 0.01, values[1] - 0.03] for key, values in SMALL.items()}


def test_the_four_preparations_are_all_combinations_and_only_noisy_ones_have_draws():
    backbone = Backbone(architecture="test_resnet", weights="w", normalisation="imagenet", output_stride=16)
    made, skipped = preparations(backbone, 7, 32)
    assert made == [
        replace(backbone, normalisation=normalisation, stochastic_depth=depth, draws=draws)
        for normalisation in ("imagenet", "keras_2021")
        for depth, draws in ((0.0, 1), (0.2, 7))
    ]
    assert not skipped


def test_the_papers_preparation_is_included():
    assert paper.BACKBONE in preparations(paper.BACKBONE, paper.BACKBONE.draws, 224)[0]


@pytest.mark.parametrize("architecture", ["mobilevit_xxs", "torchvision/vgg11", "vgg11_bn", "densenet121", "torchvision/resnet18", "resnet18d.ra2_in1k"])  # fmt: skip
def test_stochastic_depth_is_skipped_and_named_on_a_backbone_without(architecture):
    backbone = Backbone(architecture=architecture, weights="w", normalisation="half")
    made, skipped = preparations(backbone, 7, 64)
    if architecture.startswith("resnet18d"):  # has it
        assert len(made) == 4
        return
    assert [(b.normalisation, b.stochastic_depth) for b in made] == [("half", 0), ("half_keras_2021", 0)]
    assert skipped.startswith("the choice of stochastic depth is skipped: stochastic_depth: ")


@pytest.mark.parametrize("architecture", ["vgg11_bn", "densenet121", "mobilevit_xxs"])
def test_the_stage_names_the_choice_that_it_skips_and_writes_all_others(
    architecture, here, edit_params, end_of, monkeypatch, capsys
):
    own = {"backbone.architecture": architecture, "backbone.output_stride": None, "images.image_size": 64}
    edit_params(here, {f"dataset.painted_birds.{key}": value for key, value in own.items()})

    def made(settings, dataset, backbone):
        own = "as_trained" if backbone.normalisation == "half" else "keras_2021"
        runs = noise(1)
        chosen = (runs["normalisation"] == own) & (runs["stochastic_depth"] == backbone.stochastic_depth)
        return runs[chosen].assign(dataset=dataset, n_images=40)

    monkeypatch.setattr(stage, "_measure", made)
    monkeypatch.setattr(stage, "cached_table", lambda folder, name, key, work: work())
    monkeypatch.setattr(stage, "prepared_files", lambda dataset: [])
    monkeypatch.setattr(stage, "cache_key", lambda *_: "")
    assert end_of("unstated_choices") is None
    assert f"painted_birds: the choice of stochastic depth is skipped: stochastic_depth: {architecture}" in capsys.readouterr().out  # fmt: skip
    changes = pd.read_csv("reports/tables/unstated_choices_effects.csv")
    assert set(changes["choice"]) == {choice.name for choice in CHOICES} - {"stochastic_depth"}
    assert Path("reports/figures/unstated_choices.png").stat().st_size > 1000


def test_effects_without_stochastic_depth_have_every_other_choice():
    runs = table({key: values for key, values in SMALL.items() if key[2] == 0})
    assert set(effects(runs)["choice"]) == {"normalisation", "training time of BL"}


def test_every_column_that_a_choice_names_is_trained_and_has_a_title():
    named = {column for choice in CHOICES if choice.columns for column in choice.columns}
    assert named <= COLUMNS.keys() <= paper.COLUMNS.keys()
    levels = {"normalisation": NORMALISATIONS, "stochastic_depth": tuple(map(str, STOCHASTIC_DEPTHS))}
    assert {c.name: (c.reference, c.other) for c in CHOICES if not c.columns} == levels


def test_columns_of_a_choice_differ_only_in_that_choice():
    for rule in ("renormalise", "indicator"):
        assert replace(COLUMNS[f"bla_t_{rule}"], threshold_rule="subtract") == COLUMNS["bla_t"]
    for key in ("bla_ph", "bla_ph_reloaded"):
        assert replace(COLUMNS[key], head="trained") == COLUMNS["bla_t"]
    assert COLUMNS["bl"] == COLUMNS["bl_plus"]


@pytest.mark.parametrize(
    ("choice", "setting", "reference", "other", "difference", "error"),
    [
        ("normalisation", "stochastic_depth 0.0", 0.85, 0.81, -0.04, 0.01),  # differences -0.05 and -0.03
        ("normalisation", "stochastic_depth 0.2", 0.835, 0.765, -0.07, 0.02),  # -0.05 and -0.09
        ("normalisation", "all", 0.8425, 0.7875, -0.055, 0.005),  # 0.84 - 0.89 and 0.735 - 0.795
        ("stochastic_depth", "normalisation as_trained", 0.85, 0.835, -0.015, 0.005),  # -0.02 and -0.01
        ("stochastic_depth", "normalisation keras_2021", 0.81, 0.765, -0.045, 0.025),  # -0.02 and -0.07
        ("stochastic_depth", "all", 0.83, 0.80, -0.03, 0.01),  # 0.855 - 0.875 and 0.745 - 0.785
    ],
)
def test_effects_by_hand(choice, setting, reference, other, difference, error):
    row = rows(small(), choice, column="bl").loc[setting]
    values = [row["mean_reference"], row["mean_other"], row["difference"], row["standard_error"]]
    assert values == pytest.approx([reference, other, difference, error])
    assert (row["n_runs"], row["nonzero_pairs"], row["rank_biserial"], row["p"]) == (2, 2, -1, 0.5)
    reach = 12.706 * error  # the 97.5 % quantile of Student's t with one degree of freedom
    assert (row["low"], row["high"]) == pytest.approx((difference - reach, difference + reach), abs=1e-4)


def test_a_choice_between_columns_by_hand():
    table_rows = rows(small(), "training time of BL")
    settings = [f"normalisation {n}, stochastic_depth {d}" for n, d in PREPARATIONS]
    assert list(table_rows.index) == [*settings, "all"]
    assert table_rows["column"].unique().tolist() == ["bl_plus"]
    np.testing.assert_allclose(table_rows["difference"], -0.01)  # +0.01 and -0.03 everywhere
    np.testing.assert_allclose(table_rows["standard_error"], 0.02)
    assert table_rows["rank_biserial"].tolist() == pytest.approx([-1 / 3] * 5)  # ranks 1 and 2, signs + and -


def test_wilcoxon_without_ties_agrees_with_scipys_exact_test(measured):
    runs, result = measured
    values = runs.set_index(["column", *("normalisation", "stochastic_depth"), "run"])["loss"]
    for column in ("bl", "bla_t"):
        own = values[column]
        for depth in STOCHASTIC_DEPTHS:
            row = result.query(
                f"choice == 'normalisation' and setting == 'stochastic_depth {depth}' and measure == 'loss'"
            )
            p = stats.wilcoxon(own["keras_2021", depth], own["as_trained", depth], method="exact").pvalue
            assert row.loc[row["column"] == column, "p"].item() == pytest.approx(p)
    means = {column: values[column].groupby("run").mean() for column in ("bla_t", "bla_ph_reloaded", "bla_ph")}
    row = result.query("other == 'trained, reloaded' and setting == 'all' and measure == 'loss'")
    p = stats.wilcoxon(means["bla_ph_reloaded"], means["bla_ph"], method="exact").pvalue
    assert (row["p"].item(), row["n_runs"].item()) == (pytest.approx(p), 6)


def test_equal_differences_of_accuracies_tie_despite_rounding():
    assert 0.2 - 0.1 != 0.3 - 0.2
    assert 0.1 + 0.2 != 0.3
    accuracy = {key: [0.5, 0.5, 0.5] for key in SMALL}
    accuracy["bl", "as_trained", 0.0], accuracy["bl", "keras_2021", 0.0] = [0.1, 0.3, 0.3], [0.2, 0.2, 0.1 + 0.2]
    row = rows(effects(table(accuracy)), "normalisation", column="bl").loc["stochastic_depth 0.0"]
    # +0.1 and -0.1 are tied, and the third pair does not differ
    assert (row["nonzero_pairs"], row["rank_biserial"], row["p"]) == (2, 0, 1)


def by_holm(p):
    """Step down from the smallest p: multiply the i-th smallest of m by m - i, never below the previous result."""
    adjusted, largest = np.empty(len(p)), 0.0
    for i, place in enumerate(np.argsort(p, kind="stable")):
        largest = max(largest, min(1.0, (len(p) - i) * p[place]))
        adjusted[place] = largest
    return adjusted


def baselines(seed):
    """Ten runs of the baselines, with a large effect of normalisation, a small one of noise, and one of training time."""
    rng = np.random.default_rng(seed)
    values = {
        (column, name, depth): 0.9
        + rng.normal(0, 0.02, 10)
        - 0.1 * (name == "keras_2021")
        - 0.05 * (column == "bl_plus")
        for column in ("bl", "bl_plus")
        for name, depth in PREPARATIONS
    }
    return table(values, f"d{seed}")


def test_main_effects_and_single_settings_of_each_dataset_choice_and_measure_are_separate_families():
    result = effects(pd.concat([baselines(1), baselines(2)]))
    families = result.groupby(["dataset", result["setting"] == "all", "choice", "measure"])
    # Two baselines with two settings of the other choice, or one pair of columns with four.
    assert [len(family) for _, family in families] == 2 * [*[4] * 6, *[2] * 4, 1, 1]
    for _, family in families:
        np.testing.assert_allclose(family["p_holm"], by_holm(family["p"].to_numpy()))
        np.testing.assert_allclose(family["p_holm_smallest"], len(family) * 2 / 2**10)
    assert set(result["p_holm"].between(1e-6, 0.05)) == {True, False}
    alone = effects(baselines(1))
    assert result.loc[result["dataset"] == "d1", "p_holm"].tolist() == alone["p_holm"].tolist()


def test_run_r_pairs_with_run_r_for_any_order_of_rows(measured):
    runs, wanted = measured
    wanted = wanted.set_index(KEYS).sort_index()
    shuffled = effects(runs.sample(frac=1, random_state=0)).set_index(KEYS).sort_index()
    pd.testing.assert_frame_equal(shuffled, wanted)


def test_runs_of_two_columns_pair_by_their_numbers():
    paired = table(SMALL | {("bl_plus", *key[1:]): values for key, values in SMALL.items() if key[0] == "bl"})
    row = rows(effects(paired), "training time of BL").loc["all"]
    assert (row["difference"], row["nonzero_pairs"]) == (0, 0)
    turned = paired.assign(run=paired["run"].where(paired["column"] == "bl", 1 - paired["run"]))
    row = rows(effects(turned), "training time of BL").loc["all"]  # 0.765 - 0.865 and 0.865 - 0.765
    assert (row["difference"], row["standard_error"]) == (pytest.approx(0), pytest.approx(0.1))
    assert (row["nonzero_pairs"], row["rank_biserial"]) == (2, 0)


def test_every_choice_has_a_row_for_every_column_setting_and_measure(measured):
    counts = measured[1].groupby(["choice", "measure", "setting"], sort=False).size()
    assert counts["normalisation", "accuracy", "all"] == counts["stochastic_depth", "loss", "all"] == len(COLUMNS)
    assert counts["normalisation", "explanation_size", "all"] == len(COLUMNS) - 2  # not of the baselines
    assert counts["threshold rule", "loss", "all"] == counts["head of BLA-PH", "explanation_size", "all"] == 2
    assert ("training time of BL", "explanation_size", "all") not in counts.index
    settings = counts["training time of BL", "loss"].index
    assert list(settings) == [*(f"normalisation {n}, stochastic_depth {d}" for n, d in PREPARATIONS), "all"]


def test_the_baseline_has_no_explanation_size(measured):
    for result in (measured[1], cells(measured[0])):
        sized = set(result.loc[result["measure"] == "explanation_size", "column"])
        assert sized == COLUMNS.keys() - {"bl", "bl_plus"}


def test_each_normalisation_is_compared_with_its_own_halved_contrast():
    for own, halved in (("imagenet", "keras_2021"), ("half", "half_keras_2021")):
        backbone = Backbone(architecture="test_resnet", weights="w", normalisation=own, output_stride=16)
        made, _ = preparations(backbone, 7, 32)
        assert [backbone.normalisation for backbone in made] == [own, own, halved, halved]
        assert preparations(replace(made[0], normalisation=halved), 7, 32)[0] == made
        (mean, divisor), (same, root) = STATISTICS[own], STATISTICS[halved]
        assert mean == same
        np.testing.assert_allclose(np.square(root), divisor)


def test_a_normalisation_without_a_name_is_refused():
    with pytest.raises(
        BlaError, match=r"unstated_choices\.datasets: needs a normalisation of imagenet, half, not model"
    ):
        preparations(Backbone(architecture="test_resnet", weights="w", normalisation="model", output_stride=16), 7, 32)


def test_measures_that_never_change_do_not_count_for_holm():
    sizes = {key: [8, 8] for key in SMALL}
    runs = table(SMALL, size=sizes)
    result, without = effects(runs), small()
    flat = result[result["measure"] == "explanation_size"]
    assert len(flat) > 0
    assert flat["p_holm"].eq(1).all()
    assert flat["p_holm_smallest"].isna().all()
    others = result[result["measure"] != "explanation_size"]
    assert others["p_holm"].tolist() == without["p_holm"].tolist()


def test_table_cells_have_the_mean_and_standard_error_over_runs():
    runs = table(SMALL, size={key: [3, 6] if key[0] == "bl_plus" else [np.nan] * 2 for key in SMALL})
    result = cells(runs).set_index(["column", "normalisation", "stochastic_depth", "measure"])
    assert len(result) == 8 * 2 + 4  # accuracy and loss of both columns, and one size
    row = result.loc["bl", "as_trained", 0.2, "accuracy"]
    assert (row["n_runs"], row["draws"]) == (2, 5)
    assert (row["mean"], row["standard_error"]) == pytest.approx((0.835, 0.045))  # |0.88 - 0.79| / 2
    row = result.loc["bl_plus", "keras_2021", 0.0, "explanation_size"]
    assert (row["n_runs"], row["draws"]) == (2, 1)
    assert (row["mean"], row["standard_error"]) == pytest.approx((4.5, 1.5))


def test_no_runs_give_empty_tables_with_the_same_columns():
    runs = table(SMALL)
    empty = pd.DataFrame(columns=runs.columns)
    for function in (cells, effects):
        assert list(function(empty).columns) == list(function(runs).columns)
        assert len(function(empty)) == 0


def test_every_column_is_trained_from_the_same_numbers():
    torch.manual_seed(0)
    data, test = (torch.randn(2, 24, 9, 6), torch.arange(24) % 2), (torch.randn(10, 9, 6), torch.arange(10) % 2)
    seeds, schedule, calls = (
        [3, 4],
        Schedule(batch_size=8, epochs=2, learning_rate=0.01, dropout=0.2, adam_epsilon=1e-7),
        [],
    )
    table = measure(data, test, seeds, schedule, calls.append)
    assert sum(calls) == 3 * len(seeds)
    assert set(RUN) - set(table) == {"dataset", "normalisation", "stochastic_depth", "draws"}
    assert table[["column", "run"]].to_numpy().tolist() == [[column, run] for column in COLUMNS for run in range(2)]
    first, second, last = ([derive_seed(seed, phase) for seed in seeds] for phase in ("baseline", "variant", "evaluation"))  # fmt: skip
    bl = train(*data, COLUMNS["bl"], initial_head(seeds, 6, 2), first, schedule)
    for key in ("bl", "bla_t", "bla_ph", "bla_t_indicator"):
        own = bl if key == "bl" else train(*data, COLUMNS[key], bl.head, second, schedule, schedule.epochs)
        wanted = evaluate(*test, COLUMNS[key], own, last).loss.mean(dim=1)
        np.testing.assert_allclose(table.loc[table["column"] == key, "loss"], wanted, rtol=1e-4)


# The picture


@cache
def changes(*datasets):
    """Effects of every choice on random runs of some columns of these datasets."""
    rng = np.random.default_rng(0)
    names = ("bl", "bl_plus", "bla_t", "bla_t_renormalise", "bla_t_indicator", "bla_ph", "bla_ph_reloaded")
    rows = [
        {"dataset": d, "normalisation": n, "stochastic_depth": s, "draws": 1, "column": c, "run": r}
        | dict(zip(MEASURES, rng.random(3), strict=True))
        | ({"explanation_size": np.nan} if c.startswith("bl_") or c == "bl" else {})
        for d in datasets for n in NORMALISATIONS for s in STOCHASTIC_DEPTHS for c in names for r in range(4)
    ]  # fmt: skip
    keys = ["dataset", "normalisation", "stochastic_depth", "draws", "column", "run"]
    return effects(pd.DataFrame(rows, columns=[*keys, *MEASURES]))


@pytest.mark.parametrize("datasets", [("a",), ("a", "b")], ids=len)
def test_the_figure_has_a_row_per_dataset_and_shows_every_main_effect(datasets):
    effects = changes(*datasets)
    figure = choices(effects)
    assert len(figure.axes) == 3 * len(datasets)
    labels = ["change in accuracy", "change in loss (nats)", "change in explanation size (cells)"]
    for number, axis in enumerate(figure.axes):
        dataset, measure = datasets[number // 3], MEASURES[number % 3]
        main = effects[
            (effects["dataset"] == dataset) & (effects["measure"] == measure) & (effects["setting"] == "all")
        ]
        assert axis.get_xlabel() == labels[number % 3]
        drawn = np.concatenate([bar.lines[0].get_xdata(orig=False) for bar in axis.containers])
        np.testing.assert_allclose(np.sort(drawn), np.sort(main["difference"]))
        ends = [bar.lines[2][0].get_segments()[0][:, 0] for bar in axis.containers]
        np.testing.assert_allclose(np.sort(ends, axis=0), np.sort(main[["low", "high"]], axis=0))
        assert axis.get_title() == (f"{dataset} (n = 4 runs)" if number % 3 == 1 else "")
    told = [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
    assert len(told) == len(CHOICES)
    assert told[1] == "stochastic depth:\n0.0 → 0.2"
    assert {text.get_text() for text in figure.legends[0].get_texts()} == {
        paper.COLUMNS[c] for c in set(effects["column"])
    }


def test_the_figure_names_the_setting_if_nothing_ran():
    figure = choices(changes())
    assert "unstated_choices.datasets" in figure.get_suptitle()
    assert not any(axis.containers for axis in figure.axes)


def test_the_figure_shows_the_values_of_the_csv(tmp_path):
    effects = changes("a")
    effects.to_csv(tmp_path / "effects.csv", index=False)
    save_figure(choices(effects), tmp_path / "a.png", "png")
    save_figure(choices(pd.read_csv(tmp_path / "effects.csv")), tmp_path / "b.png", "png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_equal_figures_have_equal_bytes(tmp_path):
    for number in range(2):
        save_figure(choices(changes("a")), tmp_path / f"{number}.svg", "svg")
    assert (tmp_path / "0.svg").read_bytes() == (tmp_path / "1.svg").read_bytes()
