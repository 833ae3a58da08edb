"""Explanation sizes: hand-computed cases, scipy as the reference, and undefined quantities."""

import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests

from bla.base.errors import BlaError
from bla.base.paper import VARIANTS
from bla.experiments.explanation_size import figures as size_figures
from bla.experiments.explanation_size.experiment import confidences
from bla.experiments.explanation_size.tables import (
    FEWEST,
    QUANTITIES,
    RELATIONS,
    per_bin,
    per_class,
    per_run,
    relations,
    with_holm,
)
from bla.method.evaluation import evaluate
from bla.method.modules import EVALUATION_CHUNK, Head, Module, Trained

SIZE = np.array([[1, 1, 2, 4, 4, 6], [3, 3, 3, 3, 3, 3]], np.int16)
CONFIDENCE = np.array([[0.5, 0.6, 0.7, 0.8, 0.9, 1.0], [0.5, 0.6, 0.7, 0.8, 0.9, 1.0]])
CORRECT = np.array([[False, True, True, True, False, True], [True] * 6])
LABELS = np.array([0, 0, 0, 1, 1, 1])


def runs_of(size=SIZE, confidence=CONFIDENCE, correct=CORRECT, labels=LABELS):
    return per_run(size, confidence, correct, labels).assign(dataset="d", variant="bla")


def test_the_quantities_of_one_run_by_hand():
    varying, constant = (row for _, row in runs_of().iterrows())
    assert varying[["run", "n_images", "n_wrong"]].tolist() == [0, 6, 2]
    assert varying["mean"] == 3
    assert varying["standard_deviation"] == pytest.approx((20 / 5) ** 0.5)
    assert varying[["quartile_low", "median", "quartile_high"]].tolist() == [1.25, 3, 4]
    assert varying[["commonest", "commonest_share"]].tolist() == [1, pytest.approx(1 / 3)]
    assert varying["wrong_minus_right"] == pytest.approx((1 + 4) / 2 - (1 + 2 + 4 + 6) / 4)
    # Class means 4/3 and 14/3, overall mean 3: sum of squares between classes 2 * 3 * (5/3)^2 = 50/3, total 20.
    assert varying["eta2_class"] == pytest.approx(50 / 3 / 20)
    assert varying["eta2_by_chance"] == pytest.approx(1 / 5)
    assert varying["rho_confidence"] == pytest.approx(stats.spearmanr(SIZE[0], CONFIDENCE[0]).statistic)
    assert constant[["mean", "commonest_share", "n_wrong"]].tolist() == [3, 1, 0]
    assert constant[list(QUANTITIES)].isna().all()


@given(st.integers(0, 10**6))
def test_the_share_between_classes_agrees_with_an_analysis_of_variance(seed):
    rng = np.random.default_rng(seed)
    size, labels = rng.integers(1, 9, (1, 40)).astype(np.int16), rng.permutation(np.arange(40) % 4)
    found = runs_of(size, rng.random((1, 40)), np.ones((1, 40), bool), labels)["eta2_class"].item()
    f = stats.f_oneway(*(size[0, labels == label] for label in range(4))).statistic
    assert found == pytest.approx(3 * f / (3 * f + 36))


def test_random_labels_explain_the_share_of_variance_expected_by_chance():
    rng = np.random.default_rng(0)
    size = rng.integers(1, 50, (2000, 30)).astype(np.int16)
    found = runs_of(size, rng.random((2000, 30)), np.ones((2000, 30), bool), np.arange(30) % 3)
    values = found["eta2_class"]
    assert abs(values.mean() - found["eta2_by_chance"].iloc[0]) < 4 * values.sem()


def varying_runs():
    """Eight runs on 60 images: confidence follows size, errors do not; all sizes of run 3 are equal."""
    rng = np.random.default_rng(1)
    size = rng.integers(1, 50, (8, 60)).astype(np.int16)
    size[3] = 7
    return size, size / 100 + rng.normal(0, 0.02, size.shape), rng.random(size.shape) < 0.7, np.arange(60) % 2


def test_relations_are_means_over_runs_with_a_defined_value():
    table, runs = relations(*varying_runs(), 999, 0).set_index("quantity"), per_run(*varying_runs())
    assert table.index.tolist() == list(QUANTITIES)
    assert table["n_runs"].tolist() == [7, 8, 7]
    rho = runs["rho_confidence"].dropna()
    row = table.loc["rho_confidence"]
    assert row["mean"] == pytest.approx(rho.mean())
    assert row["mean_standard_error"] == pytest.approx(rho.sem())
    assert row["rank_biserial"] == 1
    assert row["low"] < row["mean"] < row["high"]
    assert table.loc["eta2_class", "without_relation"] == pytest.approx(1 / 59)
    assert row["p"] == pytest.approx(1 / 1000)
    assert table["p"].drop("rho_confidence").gt(0.05).all()


def test_holm_corrects_the_relations_of_all_columns_together():
    table = with_holm(pd.concat([relations(*varying_runs(), 999, seed) for seed in range(2)]))
    for _, family in table.groupby("quantity"):
        assert family["p_holm"].tolist() == pytest.approx(multipletests(family["p"], method="holm")[1])
    assert table["p_holm_smallest"].tolist() == pytest.approx([2 / 1000] * 6)  # of two columns


def test_undefined_relations_have_no_p_and_do_not_count_for_holm():
    confidence = np.tile(CONFIDENCE[0], (4, 1))
    constant = relations(np.full((4, 6), 3, np.int16), confidence, np.ones((4, 6), bool), LABELS, 99, 0)
    assert constant["n_runs"].tolist() == [0, 0, 0]
    assert constant[["mean", "p"]].isna().all(axis=None)
    varying = relations(*varying_runs(), 99, 0)
    both = with_holm(pd.concat([constant, varying]))["p_holm"]
    assert both.isna().tolist() == [True] * 3 + [False] * 3
    assert both.tolist()[3:] == with_holm(varying)["p_holm"].tolist()


def oracle(size, confidence, correct, labels):
    """Means over runs of the three quantities, by scipy and by an analysis of variance."""
    rho = np.mean([stats.spearmanr(*values).statistic for values in zip(size, confidence, strict=True)])
    difference = np.mean(
        [cells[~right].mean() - cells[right].mean() for cells, right in zip(size, correct, strict=True)]
    )
    groups, images = len(set(labels)), len(labels)
    f = np.array([stats.f_oneway(*(run[labels == label] for label in set(labels))).statistic for run in size])
    return np.array([rho, difference, np.mean((groups - 1) * f / ((groups - 1) * f + images - groups))])


def test_p_is_the_share_of_all_orders_of_the_images_with_as_large_a_relation():
    rng = np.random.default_rng(5)
    size, confidence = rng.integers(1, 9, (3, 6)).astype(np.int16), rng.random((3, 6))
    correct = np.array([[0, 0, 1, 1, 1, 1], [0, 1, 1, 1, 1, 0], [0, 1, 0, 1, 1, 1]], bool)
    observed = oracle(size, confidence, correct, LABELS)
    values = np.array(
        [oracle(size[:, order], confidence, correct, LABELS) for order in itertools.permutations(range(6))]
    )
    exact = (np.abs(values) >= np.abs(observed) - 1e-9).mean(axis=0)
    found = relations(size, confidence, correct, LABELS, 9999, 0)["p"]
    np.testing.assert_array_less(np.abs(found - exact), 4 * np.sqrt(exact * (1 - exact) / 9999) + 2e-4)
    assert found.tolist() == relations(size, confidence, correct, LABELS, 9999, 0)["p"].tolist()


SIMULATIONS, RUNS, IMAGES = 500, 8, 60


def skewed_sizes(rng, effect=0.0):
    """Skewed sizes that all runs share for the most part; classes of 40, 14 and 6 images; the last is larger by `effect`.

    Confidence and errors also depend on the image, in all runs alike, but not on the size.
    """
    labels = rng.permutation(np.repeat([0, 1, 2], [40, 14, 6]))
    image = rng.gamma(0.5, 12, IMAGES) + effect * (labels == 2)
    size = np.clip(np.round(1 + image * rng.lognormal(0, 0.2, (RUNS, IMAGES))), 1, 49).astype(np.int16)
    difficulty = rng.exponential(1, IMAGES)
    confidence = np.exp(-difficulty * rng.lognormal(0, 0.1, (RUNS, IMAGES)))
    return size, confidence, rng.random((RUNS, IMAGES)) > 0.5 * (difficulty > 1.5), labels


def test_a_true_null_is_rejected_in_5_per_cent_of_simulations_although_sizes_are_skewed_and_images_shared():
    """Within the central 99.9 % of a binomial distribution; a test over runs rejects far more often."""
    rng = np.random.default_rng(6)
    rejected, over_runs = np.zeros(3), np.zeros(3)
    for seed in range(SIMULATIONS):
        data = skewed_sizes(rng)
        rejected += relations(*data, 199, seed)["p"].to_numpy() <= 0.05
        runs = per_run(*data)
        nulls = {"eta2_class": runs["eta2_by_chance"]}
        over_runs += [stats.wilcoxon(runs[name] - nulls.get(name, 0)).pvalue < 0.05 for name in QUANTITIES]
    low, high = stats.binom.interval(0.999, SIMULATIONS, 0.05)
    assert ((low <= rejected) & (rejected <= high)).all(), rejected / SIMULATIONS
    assert (over_runs > 0.2 * SIMULATIONS).all(), over_runs / SIMULATIONS


def test_a_class_with_larger_explanations_is_found():
    rng, found = np.random.default_rng(7), 0
    for seed in range(50):
        found += relations(*skewed_sizes(rng, effect=25.0), 199, seed)["p"].iloc[2] <= 0.05
    assert found >= 45


@pytest.mark.parametrize("quantity", ["rho_confidence", "wrong_minus_right"])
def test_a_relation_of_size_with_confidence_or_error_is_found(quantity):
    rng = np.random.default_rng(8)
    size, _, _, labels = skewed_sizes(rng)
    large = size.mean(axis=0) > np.median(size)
    correct = rng.random(size.shape) > np.where(large, 0.6, 0.1)
    confidence = rng.random(size.shape) - 0.5 * large
    table = relations(size, confidence, correct, labels, 999, 0).set_index("quantity")
    assert table.loc[quantity, "p"] < 0.01
    assert np.sign(table.loc[quantity, "mean"]) == (-1 if quantity == "rho_confidence" else 1)


def test_without_a_varying_column_tables_are_empty_and_the_figure_says_why():
    assert with_holm(pd.DataFrame(columns=["dataset", "variant", *RELATIONS])).empty
    empty = pd.DataFrame(columns=["dataset", "variant"])
    assert size_figures.sizes(empty, empty).get_suptitle().startswith("No variant")


def test_the_size_of_each_class_by_hand():
    table = per_class(SIZE, LABELS, ["cat", "dog", "no image"])
    assert table["class"].tolist() == ["cat", "dog"]
    assert table["n_images"].tolist() == [3, 3]
    assert table["n_runs"].tolist() == [2, 2]
    assert table["mean"].tolist() == pytest.approx([(4 / 3 + 3) / 2, (14 / 3 + 3) / 2])
    assert table["standard_error"].tolist() == pytest.approx([(5 / 3) / 2, (5 / 3) / 2])


def test_bins_cover_every_size_once_and_average_over_runs_with_enough_images():
    size = np.array([[1] * 12 + [48] * 3 + [49] * 15, [4] * 30], np.int16)
    rng = np.random.default_rng(3)
    confidence, correct = rng.random(size.shape), rng.random(size.shape) < 0.6
    table = per_bin(size, confidence, correct, 49).set_index("low")
    assert table.index.tolist() == list(range(1, 50, 4))
    assert table["high"].tolist() == [*range(4, 49, 4), 49]
    assert table["share"].sum() == pytest.approx(1)
    first, last = table.loc[1], table.loc[49]
    assert first["share"] == pytest.approx((12 / 30 + 1) / 2)
    assert first["confidence"] == pytest.approx((confidence[0, :12].mean() + confidence[1].mean()) / 2)
    assert first["n_runs"] == 2
    assert last[["n_runs", "accuracy"]].tolist() == [1, pytest.approx(correct[0, 15:].mean())]
    assert np.isnan(last["accuracy_standard_error"])
    assert FEWEST > 3
    assert table.loc[45, "n_runs"] == 0
    assert np.isnan(table.loc[45, "confidence"])
    assert table.loc[45, "share"] == pytest.approx(3 / 60)


@pytest.mark.parametrize("cells", [4, 16, 49, 196])
def test_bins_end_with_the_largest_size(cells):
    table = per_bin(np.array([[1, cells]] * 2, np.int16), np.ones((2, 2)), np.ones((2, 2), bool), cells)
    assert table["high"].iloc[-1] == cells
    assert (table["low"].to_numpy()[1:] == table["high"].to_numpy()[:-1] + 1).all()
    assert table["share"].sum() == pytest.approx(1)


def test_confidence_is_the_largest_probability_of_the_evaluated_prediction():
    """The confidence is exp(-loss) if the prediction is correct; with two classes it is 1 - exp(-loss) if it is wrong."""
    torch.manual_seed(0)
    features, labels = torch.randn(EVALUATION_CHUNK + 9, 16, 5).half(), torch.arange(EVALUATION_CHUNK + 9) % 2
    head, module = Head(torch.randn(3, 2, 5), torch.randn(3, 2)), Module(torch.randn(3, 5), torch.randn(3))
    result = evaluate(features, labels, VARIANTS["bla_t"], Trained(head, module, torch.zeros(3, 1)), [0, 1, 2])
    right = torch.exp(-result.loss.double())
    expected = torch.where(result.correct, right, 1 - right).numpy()
    found = confidences(features, VARIANTS["bla_t"], head, module, "softmax")
    assert found.shape == (3, EVALUATION_CHUNK + 9)
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_confidence_needs_finite_features_and_names_the_image(value):
    features = torch.zeros(6, 16, 5)
    features[4, 3, 2] = value
    head, module = Head(torch.ones(3, 2, 5), torch.ones(3, 2)), Module(torch.ones(3, 5), torch.ones(3))
    with pytest.raises(BlaError, match="the features of 1 of 6 test images are NaN or infinite: numbers 4,"):
        confidences(features, VARIANTS["bla_t"], head, module, "softmax")


def test_the_figure_has_a_row_per_dataset_and_shows_the_tables():
    bins = pd.concat(
        [per_bin(SIZE, CONFIDENCE, CORRECT, 6).assign(dataset=d, variant=v) for d in "de" for v in ("bla", "bla_t")]
    )
    classes = pd.concat(
        [per_class(SIZE, LABELS, ["cat", "dog"]).assign(dataset=d, variant=v) for d in "de" for v in ("bla", "bla_t")]
    )
    figure = size_figures.sizes(bins, classes)
    assert len(figure.axes) == 6
    shares, by_class, _ = figure.axes[:3]
    assert shares.get_title() == "d"
    assert [text.get_text() for text in by_class.get_xticklabels()] == ["cat", "dog"]
    assert "n = 3 images a class, 2 runs" in by_class.get_title()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["BLA", "BLA-T"]
    own = bins.query("dataset == 'd' and variant == 'bla'")
    drawn = [np.array(axis.containers[0].lines[0].get_ydata(), float) for axis in (shares, by_class)]
    np.testing.assert_allclose(drawn[0], own["share"])
    np.testing.assert_allclose(drawn[1], classes.query("dataset == 'd' and variant == 'bla'")["mean"])
