"""The small CNN's experiment: runs alone or in groups, unpaired tests, and the picture."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from statsmodels.stats.multitest import multipletests

from bla.base.specs import BoundedLogits, Optimiser
from bla.datasets.moved_digits import generate
from bla.experiments.runs import table_of_runs
from bla.experiments.small_cnn.experiment import COLUMNS, POOLINGS, jobs, train_and_evaluate
from bla.experiments.small_cnn.figures import picture
from bla.experiments.small_cnn.tables import DEAD, MEASURES, RUN, differences, published_accuracies, summary
from bla.networks.small_cnn import evaluate, train

PUBLISHED = pd.read_csv(Path(__file__).parents[2] / "data/published_values.csv")
BLA_T = BoundedLogits(
    explanation="bounded_logits", head="trained", temperature=0.1, threshold_factor=1, threshold_rule="subtract"
)
SCHEDULE = Optimiser(batch_size=16, epochs=1, learning_rate=1e-3, adam_epsilon=1e-7)


def seed_of(pooling, column, run):
    return 100 * POOLINGS.index(pooling) + 10 * COLUMNS.index(column) + run


@pytest.fixture(scope="module")
def runs():
    """Three runs of every pooling and column, with accuracies drawn at random."""
    rng = np.random.default_rng(0)
    rows = [
        {"data": "d", "pooling": pooling, "column": column, "run": run, "n_images": 96}
        | {name: rng.random() for name in (*MEASURES, *DEAD)}
        for pooling in POOLINGS
        for column in COLUMNS
        for run in range(3)
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize(("device", "size"), [("cpu", 1), ("cuda", 3)])
def test_a_cpu_has_one_job_per_run_and_a_gpu_one_job_for_all_runs(device, size):
    work = jobs(3, seed_of, torch.device(device))
    found = {(p, c, start + k): seed for p, c, seeds, start in work for k, seed in enumerate(seeds)}
    assert found == {(p, c, r): seed_of(p, c, r) for p in POOLINGS for c in COLUMNS for r in range(3)}
    assert {len(seeds) for _, _, seeds, _ in work} == {size}


def test_a_job_agrees_with_train_and_evaluate():
    images, labels = generate((3, 8), 48, "train", 0)
    data = torch.from_numpy(images).float() / 255, torch.from_numpy(labels)
    work = [("mean", "bl", [5], 3), ("mean", "bla_t", [7, 8], 1)]
    for (pooling, column, seeds, start), (table, result) in zip(work, train_and_evaluate(work, data, data, BLA_T, SCHEDULE), strict=True):  # fmt: skip
        variant = BLA_T if column == "bla_t" else None
        wanted = evaluate(*data, pooling, variant, train(*data, pooling, variant, seeds, SCHEDULE))
        torch.testing.assert_close(result.loss, wanted.loss)
        assert (result.explained is None) == (variant is None)
        own = table_of_runs(result)
        pd.testing.assert_frame_equal(table[own.columns], own.assign(run=own["run"] + start))
        assert table["seed"].tolist() == seeds
        assert set(table["n_train_images"]) == {48}
        assert set(RUN) - set(table) == {"data"}


def test_means_are_beside_the_papers_accuracies(runs):
    table = summary(runs, {"bl": 0.9})
    assert table["paper_accuracy"].tolist()[0] == 0.9
    assert np.isnan(table["paper_accuracy"].tolist()[1])
    own = runs.query("pooling == 'flat' and column == 'bl'")["accuracy"]
    row = table.query("pooling == 'flat' and column == 'bl'").iloc[0]
    assert (row["accuracy"], row["accuracy_standard_error"]) == pytest.approx((own.mean(), own.sem()))
    assert published_accuracies(PUBLISHED) == {"bl": 0.994, "bla_t": 0.993}


def test_bla_t_is_compared_with_bl_by_an_unpaired_test(runs):
    table = differences(runs)
    assert len(table) == 4
    x, y = (runs.query(f"pooling == 'flat' and column == '{column}'")["accuracy"] for column in ("bla_t", "bl"))
    found = table.query("pooling == 'flat' and measure == 'accuracy'").iloc[0]
    assert found["p"] == pytest.approx(stats.mannwhitneyu(x, y).pvalue)
    assert found["difference"] == pytest.approx(x.mean() - y.mean())
    low, high = stats.ttest_ind(x, y, equal_var=False).confidence_interval()
    assert (found["low"], found["high"]) == pytest.approx((low, high))
    for _, family in table.groupby("measure"):
        assert family["p_holm"].tolist() == pytest.approx(multipletests(family["p"], method="holm")[1])
    assert table["p_holm_smallest"].tolist() == pytest.approx([2 * 2 / 20] * 4)  # of two tests; C(6, 3) = 20 orders


def test_the_figure_states_the_cells_of_run_0_and_the_number_of_runs(runs):
    rng = np.random.default_rng(0)
    cells = {pooling: rng.random((4, 7, 7)) < 0.3 for pooling in POOLINGS}
    figure = picture(runs, np.zeros((4, 28, 28, 3), np.uint8), {name: own.astype(float) for name, own in cells.items()})
    told = [axis.get_xlabel() for axis in figure.axes if "cells" in axis.get_xlabel()]
    assert sorted(told) == sorted(f"{int(own.sum())} cells" for part in cells.values() for own in part)
    titles = [axis.get_title() for axis in figure.axes if axis.get_title()]
    assert len(titles) == 2
    assert all("n = 3 runs, 96 images" in title for title in titles)
