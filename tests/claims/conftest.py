"""Columns of Table 1, tables of other experiments, and the evidence for claims."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from bla.claims.judge import judge_claims
from bla.claims.register import Evidence
from bla.claims.rules import Dataset
from bla.experiments.runs import Column

PUBLISHED = pd.read_csv(Path(__file__).parents[2] / "data/published_values.csv")
RUNS, IMAGES = 20, 1000


def _column(accuracy, loss, spread=0.002, seed=0, sizes=(3, 9)):
    rng = np.random.default_rng(seed)
    correct = np.zeros((RUNS, IMAGES), bool)
    for run, count in enumerate(np.round((accuracy + rng.normal(0, spread, RUNS)) * IMAGES).astype(int)):
        correct[run, : min(count, IMAGES)] = True
    losses = np.repeat(loss * (1 + rng.normal(0, 5 * spread, (RUNS, 1))), IMAGES, axis=1)
    return Column(correct, losses, rng.integers(*sizes, (RUNS, IMAGES)).astype(np.int16))


@pytest.fixture(scope="session")
def column():
    """`column(accuracy, loss, spread, seed)`: 20 runs on 1,000 images with about these means."""
    return _column


@pytest.fixture
def like_the_paper():
    """Columns with the values of Table 1 on birds; the post-hoc variant varies more."""
    return {
        "bl": _column(0.68, 1.3, seed=1),
        "bl_plus": _column(0.68, 1.3, seed=2),
        "l2x_f": _column(0.64, 2.3, seed=3),
        "bla": _column(0.673, 1.78, 0.0004, seed=4),
        "bla_t": _column(0.68, 2.0, 0.0004, seed=5),
        "bla_ph": _column(0.68, 2.0, 0.02, seed=6),
    }


def _modules(collapsed=20, logit=-1000.0, pointwise=30.0, bla=10.0, dataset="birds"):
    run = np.arange(20)
    spread = np.where(run % 2, 0.5, -0.5) * (1 + run / 20)
    columns = {
        "bla": ("bounded_logits", bla + spread),
        "vector": ("concept_vector", np.where(run < collapsed, 1.0, 49.0)),
        "sigmoid": ("pointwise", pointwise - spread),
    }
    rows = []
    for variant, (explanation, size) in columns.items():
        table = pd.DataFrame({"variant": variant, "explanation": explanation, "run": run, "explanation_size": size})
        table["share_one_cell"], table["share_empty"] = (size == 1) * 0.96, 0.0
        rows.append(table.assign(median_largest_logit=np.where(size == 1, logit, 0)))
    return pd.concat(rows).assign(dataset=dataset, n_images=100)


@pytest.fixture(scope="session")
def modules():
    """`modules(collapsed, logit, pointwise, bla)`: 20 runs of each abandoned module and of BLA.

    `collapsed` concept vectors keep one cell with this logit; sizes vary a little around the given values.
    """
    return _modules


def _small_cnn(data="mnist_3_vs_8", bl=0.994, bla_t=0.993, spread=0.001, runs=20):
    values = stats.norm.ppf((np.arange(runs) + 0.5) / runs)
    rows = [
        {"data": data, "pooling": "flat", "column": name, "n_images": 1984, "accuracy": mean + spread * value}
        for name, mean in (("bl", bl), ("bla_t", bla_t))
        for value in values
    ]
    return pd.DataFrame(rows)


@pytest.fixture(scope="session")
def small_cnn():
    """`small_cnn(data, bl, bla_t, spread)`: 20 runs of each column with exactly these means."""
    return _small_cnn


def _two_network(soft=0.96, hard=0.5, spread=0.005, classes=2, left_out=0, runs=10, **reading):
    values = spread * stats.norm.ppf((np.arange(runs) + 0.5) / runs)
    table = pd.DataFrame({"run": range(runs), "soft_accuracy": soft + values, "hard_accuracy": hard + values})
    about = {"dataset": "cats", "reading": "multiplied", "temperature": 0.1, "background": "black"}
    about |= {"straight_through": False} | reading
    return table.assign(**about, n_images=4653, n_images_left_out=left_out, n_classes=classes)


@pytest.fixture(scope="session")
def two_network():
    """`two_network(soft, hard, spread, classes)`: 10 runs of L2X with two networks with exactly these mean accuracies."""
    return _two_network


def _selection(bla_t=2.6, l2x=2.6, spread=0.1, runs=20, data="orange_skin"):
    values = spread * stats.norm.ppf((np.arange(runs) + 0.5) / runs)
    rows = [
        {"data": data, "method": name, "run": run, "n_samples": 1000, "median_rank": mean + sign * value}
        for name, mean, sign in (("bla_t", bla_t, 1), ("l2x", l2x, -1))
        for run, value in enumerate(values)
    ]
    return pd.DataFrame(rows, columns=["data", "method", "run", "n_samples", "median_rank"])


@pytest.fixture(scope="session")
def selection():
    """`selection(bla_t, l2x, spread)`: 20 runs of BLA-T and L2X on a synthetic set with exactly these mean median ranks."""
    return _selection


@pytest.fixture(scope="session")
def evidence():
    """`evidence(datasets, small_cnn=..., ...)`: the evidence for claims, by default with the paper's settings."""

    def make(datasets=(), **given):
        rest = {
            "small_cnn": _small_cnn(),
            "small_cnn_departures": (),
            "abandoned_modules": _modules(dataset="none of these"),
            "abandoned_departures": {"vector": (), "sigmoid": ()},
            "two_network_l2x": _two_network(),
            "two_network_l2x_departures": {"cats": ()},
            "subset_selection": _selection(runs=0),
            "agreement": pd.DataFrame(columns=["p"]),
            "user_study": pd.DataFrame(columns=["against"]),
            "kinds": {"cats": "cats_vs_dogs"},
            "published": PUBLISHED,
            "alpha": 0.05,
            "resamples": 999,
            "seed": 0,
        }
        return Evidence(datasets=datasets, **rest | given)

    return make


@pytest.fixture(scope="session")
def judge(evidence):
    """`judge(columns, kind, classes, departures=...)`: the table of claims for one dataset with these columns."""

    def make(columns, kind="caltech_birds", classes=200, **about):
        return judge_claims(evidence([Dataset("birds", kind, classes, columns, **about)]))

    return make


@pytest.fixture(scope="session")
def answers():
    """`answers(table, 7)`: whether claim 7 holds here, case by case; `answers(table)`: (holds_here, verdict) by claim."""

    def make(table, number=None):
        if number is not None:
            return table.loc[table["claim"] == number, "holds_here"].tolist()
        rows = zip(table["claim"], table["holds_here"], table["verdict"], strict=True)
        return {claim: (holds_here, verdict) for claim, holds_here, verdict in rows}

    return make
