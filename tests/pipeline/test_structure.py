"""Hard explanations beside SAG's sets, where the black image alone suffices for some images."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from bla.base.specs import BoundedLogits
from bla.experiments.related_methods.structure.figures import CHOICE, SUFFICIENT
from bla.experiments.related_methods.structure.measures import ImageSets
from bla.experiments.related_methods.structure.tables import beside_random, summary
from pipeline.maps import structure

BLACK = [True, False, False, True, False]
RUNS, CELLS, MEASURED = 2, 4, 1


def relative(rows, sets):
    """Cell 0 and cell 1 suffice alone, each; where the black image suffices, anything does."""
    return [1.0 if BLACK[row] else 0.95 if cells & {0, 1} else 0.2 for row, cells in zip(rows, sets, strict=True)]


def found(black):
    sets = [ImageSets([[0], [1]], [0.95] * 2, ["minimal"] * 2, 1.0 if suffices else 0.1) for suffices in black]
    shown = SimpleNamespace(relative=relative, classifier=SimpleNamespace(is_pooled=True))
    return SimpleNamespace(sets=sets, shown=shown)


def quantities(black, hard, monkeypatch):
    monkeypatch.setattr(structure, "_on_feature_map", lambda dataset, found, hard: hard.mean(axis=2))
    different = [[] if suffices else [[0], [1]] for suffices in black]
    return structure._quantities("d", found(black), different, hard, MEASURED)


def hard_sets(cells_of_image):
    """The same cells in both runs, `[R, N, n]`."""
    hard = np.zeros((RUNS, len(BLACK), CELLS), bool)
    for image, cells in enumerate(cells_of_image):
        hard[:, image, cells] = True
    return hard


def test_images_where_the_black_image_alone_suffices_are_in_no_quantity(monkeypatch):
    ours = quantities(BLACK, hard_sets([[2, 3], [0, 2, 3], [2], [0, 1], [1]]), monkeypatch)
    random = quantities(BLACK, hard_sets([[0, 1], [2], [3], [2, 3], [2, 3]]), monkeypatch)
    assert ours[SUFFICIENT].tolist() == [[1, 0, 1]] * RUNS
    assert ours["relative_confidence"].tolist() == [[0.95, 0.2, 0.95]] * RUNS
    assert ours["sufficient_in_feature_map"].tolist() == [[0.75, 0.25, 0.25]] * RUNS
    np.testing.assert_array_equal(ours["cells_to_spare"], [2, np.nan, 0])
    assert ours[CHOICE].tolist() == [[1, 0, 1]] * RUNS
    row = beside_random(ours[SUFFICIENT], random[SUFFICIENT], 1)
    assert (row["n_images"], row["mean"], row["random"]) == (3, pytest.approx(2 / 3), 0)
    assert row["p_smallest"] == 2 / 2**3


def test_the_cells_of_a_row_are_those_of_its_runs_and_images(monkeypatch):
    """Images 1, 2 and 4 count; in run 1 those of images 2 and 4 suffice; only images 1 and 2 have two sets."""
    run_0, run_1 = [[0, 1, 2, 3], [0], [1], [0, 1, 2, 3], [0, 1]], [[], [2, 3], [0, 2, 3], [], [1]]
    hard = np.zeros((RUNS, len(BLACK), CELLS), bool)
    for run, sets in enumerate((run_0, run_1)):
        for image, cells in enumerate(sets):
            hard[run, image, cells] = True
    explained = found(BLACK)
    explained.numbers = np.arange(len(BLACK))
    explained.sets[4] = ImageSets([[1]], [0.95], ["minimal"], 0.1)  # has one set: no choice
    spec = BoundedLogits(explanation="bounded_logits", head="trained", temperature=0.1, threshold_factor=0)
    settings = SimpleNamespace(variants=["v"], variant={"v": spec}, faithfulness=SimpleNamespace(run=MEASURED), seed=0)
    given = SimpleNamespace(title="V", hard=hard)
    monkeypatch.setattr(structure, "explained_by", lambda dataset, settings: {"v": lambda numbers: given})
    monkeypatch.setattr(structure, "_on_feature_map", lambda dataset, found, hard: hard.mean(axis=2))
    rows = structure.hard_beside_minimal("d", settings, explained)[0].set_index("quantity")
    assert set(rows["run"]) == {MEASURED}
    every = [(1 + 1 + 2 + 2 + 3 + 1) / 6, (2 + 3 + 1) / 3]
    for quantity in (SUFFICIENT, "relative_confidence", "sufficient_in_feature_map"):
        assert rows.loc[quantity, ["cells", "cells_of_run"]].tolist() == pytest.approx(every)
    assert rows.loc["cells_to_spare", ["n_images", "cells", "cells_of_run"]].tolist() == [2, 2, 2]
    assert rows.loc[CHOICE, ["n_images", "cells", "cells_of_run"]].tolist() == [2, (1 + 1 + 2 + 3) / 4, 2.5]


def test_without_another_image_every_quantity_is_empty(monkeypatch):
    black = [True] * len(BLACK)
    empty = quantities(black, hard_sets([[0]] * len(BLACK)), monkeypatch)
    assert {name: values.size for name, values in empty.items()} == dict.fromkeys(empty, 0)
    assert beside_random(empty[SUFFICIENT], empty[SUFFICIENT], 1)["n_images"] == 0


def test_the_smallest_set_is_an_integer_beside_images_without_one():
    count = len(BLACK)
    of_images = found(BLACK).sets
    shown = SimpleNamespace(whole=torch.full((count,), 0.5))
    right = np.ones(count, bool)
    explained = structure.Explanations(np.arange(count), np.zeros(0, np.uint8), ["a"] * count, right, shown, of_images, [], (2, 2))  # fmt: skip
    table = explained.table()
    assert table["smallest_set"].to_csv(index=False).split() == ["smallest_set", '""', "1", "1", '""', "1"]
    means = summary(table.assign(dataset="d")).set_index(["group", "quantity"]).loc[("all", "smallest_set")]
    assert means[["n_images", "n_without", "mean"]].tolist() == [3, 2, 1]
    joined = pd.concat([table.iloc[:1], table.iloc[1:3]])
    assert joined["smallest_set"].dtype == "Int64"
