"""The modules that the paper gave up: what is told of their runs, and how they are compared with BLA."""

import numpy as np
import pandas as pd
import pytest
import torch

from bla.experiments.abandoned_modules.tables import LOGITS, MEASURES, against_bla, picture, run_table
from bla.experiments.runs import means
from bla.inference.paired import bootstrap, holm, wilcoxon
from bla.method.modules import Evaluation, Explained


def test_a_row_a_run_by_hand():
    """Two runs, three images, four cells: one cell, no cell and all cells in run 0; one cell each in run 1."""
    logits = torch.tensor([[[-1.0, 0, -2, -3], [-5, -6, -7, -8], [0, 0, 0, 0]], [[-900.0, -901, -905, -902]] * 3])
    hard = torch.tensor([[[0, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]], [[1, 0, 0, 0]] * 3]).bool()
    correct, loss = torch.tensor([[True, False, True], [True] * 3]), torch.tensor([[0.0, 3, 3], [1, 1, 1]])
    explained = Explained(logits, torch.zeros(2, 3, 4), hard, ~correct, loss + 1)
    table = run_table(Evaluation(correct, loss, explained))
    assert table["n_images"].tolist() == [3, 3]
    assert table["accuracy"].tolist() == pytest.approx([2 / 3, 1])
    assert table["soft_accuracy"].tolist() == pytest.approx([1 / 3, 0])
    assert (table["loss"].tolist(), table["soft_loss"].tolist()) == ([2, 1], [3, 2])
    assert table["explanation_size"].tolist() == pytest.approx([5 / 3, 1])
    assert table["share_one_cell"].tolist() == pytest.approx([1 / 3, 1])
    assert table["share_empty"].tolist() == pytest.approx([1 / 3, 0])
    assert table[LOGITS].to_numpy().tolist() == [[-8, 0, 0], [-905, -900, -900]]


def runs_of(*datasets):
    rng = np.random.default_rng(0)
    rows = []
    for dataset in datasets:
        for variant in ("bla", "concept_vector", "pointwise"):
            table = pd.DataFrame({"dataset": dataset, "variant": variant, "explanation": "x", "run": range(6)})
            rows.append(table.assign(n_images=10, **{name: rng.normal(size=6) for name in [*MEASURES, *LOGITS]}))
    return pd.concat(rows).sample(frac=1, random_state=0)  # in any order


def test_runs_are_compared_with_the_run_of_bla_that_has_the_same_head():
    runs = runs_of("a", "b")
    table = against_bla(runs, 99, 0)
    assert len(table) == 2 * 2 * 3
    for row in table.itertuples():
        x, y = (
            runs[(runs["dataset"] == row.dataset) & (runs["variant"] == variant)]
            .sort_values("run")[row.measure]
            .to_numpy()
            for variant in (row.variant, "bla")
        )
        test, interval = wilcoxon(x, y), bootstrap(x - y, 99, 0)
        assert (row.n_runs, row.p, row.rank_biserial) == (6, test.p, test.effect_size)
        assert (row.low, row.high) == (interval.low, interval.high)
        assert row.difference == pytest.approx(x.mean() - y.mean())
    np.testing.assert_array_equal(table["p_holm"], holm(table["p"].to_numpy()))


def test_means_have_their_standard_errors():
    runs = runs_of("a")
    table = means(runs, ["dataset", "variant"], ["loss"]).set_index("variant")
    own = runs[runs["variant"] == "pointwise"]["loss"]
    assert table.loc["pointwise", ["n_runs", "n_images"]].tolist() == [6, 10]
    assert table.loc["pointwise", "loss"] == pytest.approx(own.mean())
    assert table.loc["pointwise", "loss_standard_error"] == pytest.approx(own.std() / 6**0.5)


def test_the_picture_tells_how_many_and_says_when_there_is_nothing():
    figure = picture(runs_of("a", "b"))
    assert [axis.get_title() for axis in figure.axes[::2]] == ["b (n = 6 runs, 10 images)", "a (n = 6 runs, 10 images)"]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()][-1] != ""
    empty = pd.DataFrame(columns=["dataset", "variant", "explanation", "run", "n_images", *MEASURES, *LOGITS])
    assert "None of alternatives.datasets" in picture(empty).get_suptitle()
    assert against_bla(empty, 99, 0).empty
    assert means(empty, ["dataset", "variant"], MEASURES).empty
