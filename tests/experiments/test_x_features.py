"""Tables and picture of XNN's x-features."""

import numpy as np
import pytest
import torch

from bla.base.errors import BlaError
from bla.experiments.related_methods.x_features.figures import DrawnClass, x_features
from bla.experiments.related_methods.x_features.tables import class_row, contribution_rows, tables

X = torch.tensor([[1.0, 0, 0, 2], [2, 0, 0, 0], [0, 3, 0, 1], [0, 1, 0, 5]])
WEIGHTS = torch.tensor([2.0, -1, 4, 0])
LOGITS = X @ WEIGHTS + 0.5


def test_an_exact_orthogonal_class_with_a_dead_x_feature():
    row = class_row(X, WEIGHTS, torch.tensor(0.5), LOGITS)
    assert row == {
        "n_images": 4,
        "n_x_features": 3,
        "r_squared": pytest.approx(1),
        "faithful": True,
        "orthogonality": pytest.approx(1),
        "n_dead": 1,
    }


def test_parallel_x_features_are_not_orthogonal_and_dead_ones_do_not_count():
    parallel = torch.tensor([[1.0, 2, 0, 0], [2, 4, 0, 0]])
    row = class_row(parallel, torch.tensor([1.0, -1, 1, 1]), torch.tensor(0.0), torch.tensor([0.0, 1]))
    assert row["orthogonality"] == pytest.approx(0)
    assert row["n_dead"] == 2
    assert np.isnan(class_row(X, torch.tensor([2.0, 0, 4, 0]), torch.tensor(0.0), LOGITS)["orthogonality"])


@pytest.mark.parametrize(("error", "faithful"), [(0.33, True), (0.34, False)])
def test_a_class_is_faithful_from_an_r_squared_of_nine_tenths(error, faithful):
    """R² is 1 / (1 + error^2): nine tenths at an error of a third."""
    signs = torch.tensor([1.0, -1, 1, -1])
    logits = signs * torch.tensor([1 + error, 1 + error, 1 - error, 1 - error])
    row = class_row(signs[:, None], torch.tensor([1.0]), torch.tensor(0.0), logits)
    assert row["r_squared"] == pytest.approx(1 / (1 + error**2), abs=1e-6)
    assert row["faithful"] is faithful


def test_constant_predictions_are_never_faithful():
    row = class_row(torch.zeros(4, 2), torch.ones(2), LOGITS.mean(), LOGITS)
    assert row["r_squared"] == pytest.approx(0, abs=1e-6)
    assert not row["faithful"]
    assert row["n_dead"] == 2


@pytest.mark.parametrize("level", [2.5, 0.0, -1e4])
def test_r_squared_of_constant_logits_is_undefined_and_not_faithful(level):
    exact = class_row(X, torch.zeros(4), torch.tensor(level), torch.full((4,), level))
    assert np.isnan(exact["r_squared"])
    assert exact["faithful"] is False
    rounded = torch.full((4,), level) * torch.tensor([1, 1 + 2**-23, 1, 1])
    assert np.isnan(class_row(X, torch.zeros(4), torch.tensor(level), rounded)["r_squared"])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("which", [slice(None), 2])
def test_logits_that_are_not_finite_are_one_message(value, which):
    logits = LOGITS.clone()
    logits[which] = value
    with pytest.raises(BlaError, match="logits of the test images are not finite"):
        class_row(X, WEIGHTS, torch.tensor(0.5), logits)


def test_a_class_without_an_x_feature_in_use_is_the_constant_of_its_bias_and_not_faithful():
    row = class_row(X, torch.zeros(4), LOGITS.mean() + LOGITS.std(unbiased=False), LOGITS)
    assert row["r_squared"] == pytest.approx(-1, abs=1e-6)
    assert (row["n_x_features"], row["faithful"]) == (0, False)
    assert contribution_rows(X, torch.zeros(4), np.ones(4, bool)) == []


def test_contributions_have_standard_errors_over_the_images_of_the_class():
    rows = contribution_rows(X, WEIGHTS, np.array([True, True, True, False]))
    assert [row["x_feature"] for row in rows] == [0, 2, 1]
    assert [row["contribution"] for row in rows] == pytest.approx([2, 0, -1])
    spread = np.std([2, 4, 0], ddof=1) / 3**0.5, 0, np.std([0, 0, -3], ddof=1) / 3**0.5
    assert [row["standard_error"] for row in rows] == pytest.approx(spread)
    (one,) = contribution_rows(X[:, :1], WEIGHTS[:1], np.array([True, False, False, False]))
    assert (one["contribution"], one["n_images"]) == (2, 1)
    assert np.isnan(one["standard_error"])
    (none,) = contribution_rows(X[:, :1], WEIGHTS[:1], np.zeros(4, bool))
    assert np.isnan(none["contribution"])


def test_tables_without_a_fitted_method_have_their_columns():
    made = tables([], [])
    assert {"r_squared", "faithful", "orthogonality", "n_dead"} <= set(made[""])
    assert {"x_feature", "contribution", "standard_error"} <= set(made["_contributions"])


def drawn(mean, error, numbers=(0, 3)):
    rng, count = np.random.default_rng(0), len(numbers)
    images = rng.integers(0, 256, (count, 2, 8, 8, 3), dtype=np.uint8)
    return DrawnClass("robin", 0.95, numbers, mean, error, images, rng.random((count, 2, 2, 2)), [["a", "b"]] * count)


def test_a_class_that_is_not_faithful_says_so_and_has_no_bars():
    figure = x_features([drawn(np.array([2.0, -1]), np.array([0.1, 0.2])), drawn(None, None, (1,))], "birds")
    texts = [text.get_text() for axis in figure.axes for text in axis.texts]
    assert texts == ["not faithful"]
    assert sum(len(axis.patches) for axis in figure.axes) == 2
    assert sum(len(axis.images) for axis in figure.axes) == 2 * 3


def test_a_class_without_x_features_has_no_picture_and_a_nan_is_called_undefined():
    of_class = DrawnClass(
        "robin", np.nan, [], None, None, np.zeros((0, 2, 8, 8, 3), np.uint8), np.zeros((0, 2, 2, 2)), []
    )
    figure = x_features([of_class], "birds")
    (axis,) = figure.axes
    assert axis.get_title() == "robin\nR² undefined"
    assert [text.get_text() for text in axis.texts] == ["not faithful"]
