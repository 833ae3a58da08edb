"""The modules that the paper abandoned: training in parts, and comparison with BLA."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from bla.base.specs import ConceptVector, Pointwise, Schedule
from bla.experiments.abandoned_modules.experiment import train_runs
from bla.experiments.abandoned_modules.figures import picture
from bla.experiments.abandoned_modules.tables import LOGITS, MEASURES, against_bla
from bla.experiments.runs import means
from bla.inference.paired import holm, wilcoxon
from bla.method.evaluation import evaluate
from bla.method.initialisation import initial_head
from bla.method.training import train
from bla.runtime.seeds import derive_seed

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    "variant", [ConceptVector(explanation="concept_vector", head="trained", temperature=0.1, activation="linear"), Pointwise(explanation="pointwise", head="trained", temperature=0.1)], ids=str
)  # fmt: skip
def test_training_runs_in_parts_gives_the_same_runs(variant):
    """With draws of stochastic depth, run r reads draw (r + epoch) mod D in every part."""
    torch.manual_seed(0)
    data, test = (torch.randn(2, 40, 9, 6), torch.arange(40) % 2), (torch.randn(20, 9, 6), torch.arange(20) % 2)
    seeds, head, schedule = (
        [1, 2, 3],
        initial_head([1, 2, 3], 6, 2),
        Schedule(batch_size=8, epochs=2, learning_rate=0.01, dropout=0.2, adam_epsilon=1e-3),
    )
    trained = train(*data, variant, head, seeds, schedule, schedule.epochs)
    wanted = evaluate(*test, variant, trained, [derive_seed(seed, "evaluation") for seed in seeds])
    firsts, losses = zip(*((first, result.loss) for first, result in train_runs(data, test, variant, head, seeds, schedule, CPU)), strict=True)  # fmt: skip
    assert list(firsts) == list(range(0, 3, len(losses[0])))
    torch.testing.assert_close(torch.cat(losses), wanted.loss, rtol=1e-4, atol=1e-5)


def runs_of(*datasets):
    rng = np.random.default_rng(0)
    rows = []
    for dataset in datasets:
        for variant in ("bla", "concept_vector", "pointwise"):
            table = pd.DataFrame({"dataset": dataset, "variant": variant, "explanation": "x", "run": range(6)})
            rows.append(table.assign(n_images=10, **{name: rng.normal(size=6) for name in [*MEASURES, *LOGITS]}))
    return pd.concat(rows).sample(frac=1, random_state=0)  # in any order


def test_runs_are_paired_with_the_bla_run_of_the_same_head():
    runs = runs_of("a", "b")
    table = against_bla(runs)
    assert len(table) == 2 * 2 * 3
    for row in table.itertuples():
        x, y = (
            runs[(runs["dataset"] == row.dataset) & (runs["variant"] == variant)]
            .sort_values("run")[row.measure]
            .to_numpy()
            for variant in (row.variant, "bla")
        )
        test, interval = wilcoxon(x, y), stats.ttest_1samp(x - y, 0).confidence_interval()
        assert (row.n_runs, row.p, row.rank_biserial) == (6, test.p, test.effect_size)
        assert (row.low, row.high) == pytest.approx((interval.low, interval.high))
        assert row.difference == pytest.approx(x.mean() - y.mean())
    for _, family in table.groupby(["dataset", "measure"]):
        np.testing.assert_array_equal(family["p_holm"], holm(family["p"].to_numpy()))
        assert family["p_holm_smallest"].tolist() == [2 * 2 / 2**6] * 2


def test_the_figure_states_the_numbers_of_runs_and_images_or_that_nothing_ran():
    figure = picture(runs_of("a", "b"))
    assert [axis.get_title() for axis in figure.axes[::2]] == ["b (n = 6 runs, 10 images)", "a (n = 6 runs, 10 images)"]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()][-1] != ""
    empty = pd.DataFrame(columns=["dataset", "variant", "explanation", "run", "n_images", *MEASURES, *LOGITS])
    assert "abandoned_modules.datasets" in picture(empty).get_suptitle()
    assert against_bla(empty).empty
    assert means(empty, ["dataset", "variant"], MEASURES).empty
