"""How much maps depend on the class: which two classes, and their correlation against scipy's."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from bla.experiments.errors.tables import class_dependence, two_classes

RNG = np.random.default_rng(0)


def test_the_two_classes_are_the_predicted_and_the_true_or_the_second_one():
    scores = np.array([[3.0, 1, 2], [3, 1, 2], [1, 5, 1], [0, 0, 0]])
    labels = np.array([1, 0, 1, 2])
    assert two_classes(scores, labels).tolist() == [[0, 0, 1, 0], [1, 2, 0, 2]]


@pytest.mark.parametrize("wrong", [[True] * 3 + [False] * 5, [False, True] * 4, [True] * 8, [False] * 8])
def test_correlations_are_scipys_on_wrong_and_on_right_images(wrong):
    wrong = np.array(wrong)
    maps = RNG.normal(size=(2, 8, 9))
    table = class_dependence({"cam": maps}, wrong).set_index("images")
    for images, chosen in (("wrong", wrong), ("right", ~wrong)):
        expected = [spearmanr(maps[0, i], maps[1, i]).statistic for i in np.flatnonzero(chosen)]
        assert table["n"][images] == len(expected)
        if expected:
            assert table["correlation"][images] == pytest.approx(np.mean(expected))
            assert table["standard_error"][images] == pytest.approx(np.std(expected, ddof=1) / len(expected) ** 0.5)
        else:
            assert np.isnan(table["correlation"][images])


def test_a_map_that_ignores_the_class_has_correlation_1_and_constant_maps_are_counted():
    one, other = RNG.normal(size=(2, 6, 9))
    flat = np.stack([one, other])
    flat[1, 2:4] = 7
    table = class_dependence({"same": np.stack([one, one]), "flat": flat}, np.ones(6, bool)).set_index(
        ["method", "images"]
    )
    assert table.loc[("same", "wrong"), "correlation"] == pytest.approx(1)
    assert table.loc[("flat", "wrong"), ["n", "n_constant"]].tolist() == [4, 2]
