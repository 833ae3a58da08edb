"""Subset selection: generators and measures computed by hand, networks against torch.nn, paired runs, tables and picture."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from statsmodels.stats.multitest import multipletests
from torch import nn

from bla.base.errors import BlaError
from bla.base.specs import L2XF, BoundedLogits, Optimiser
from bla.experiments.subset_selection.data import LOGITS, SETS, generate
from bla.experiments.subset_selection.experiment import evaluate, hard_input, soft_input, train
from bla.experiments.subset_selection.figures import picture
from bla.experiments.subset_selection.measures import median_ranks, recovery, selected_shares
from bla.experiments.subset_selection.networks import initial
from bla.experiments.subset_selection.tables import MEASURES, METHODS, by_feature, differences, summary
from bla.runtime.generators import generators_of

CPU = torch.device("cpu")
BLA_T = BoundedLogits(
    explanation="bounded_logits", head="trained", temperature=0.1, threshold_factor=0.98, threshold_rule="subtract"
)
L2X = L2XF(explanation="l2x_f", head="trained", temperature=10, k=2)
SCHEDULE = Optimiser(batch_size=20, epochs=2, learning_rate=1e-3, adam_epsilon=1e-7)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


# The sets


@pytest.mark.parametrize(
    ("name", "features", "probability"),
    [
        ("orange_skin", [1, -1, 1, -1], 0.5),  # logit 4 - 4
        ("orange_skin", [0, 0, 0, 0], 0.017986),  # -4
        ("orange_skin", [2, 1, 0, 0], 0.731059),  # 1
        ("xor", [1, -2], 0.119203),  # -2
        ("xor", [-1.5, -2], 0.952574),  # 3
        ("xor", [0, 5], 0.5),
        ("additive", [0, 0, 0, 0], 0.197816),  # 1 - 2.4
        ("additive", [0, -2, 1, 0], 0.832018),  # 2 + 1 + 1 - 2.4
        ("additive", [0, 0, 0, -np.log(2.4)], 0.5),
        ("additive", [5 * np.arcsin(0.01), 0, 0, 0], 0.083173),  # -1 + 1 - 2.4
    ],
)
def test_probabilities_of_class_1_as_computed_by_hand(name, features, probability):
    x = torch.randn(10, generator=generator(), dtype=torch.float64)  # the other features do not matter
    x[: len(features)] = torch.tensor(features, dtype=torch.float64)
    assert float(LOGITS[name](x).sigmoid()) == pytest.approx(probability, abs=1e-5)


@pytest.mark.parametrize("name", ["orange_skin", "xor", "additive"])
def test_samples_are_standard_normal_and_the_first_k_features_are_relevant(name):
    x, probability, relevant = generate(name, 4000, generator())
    assert stats.kstest(x.numpy().ravel(), "norm").pvalue > 1e-4
    assert relevant.float().mean(dim=0).tolist() == [1.0] * SETS[name].k + [0.0] * (10 - SETS[name].k)
    torch.testing.assert_close(probability, LOGITS[name](x).sigmoid())
    for feature in range(10):  # a feature changes the probability if and only if it is relevant
        changed = x.clone()
        changed[:, feature] += 0.7
        assert (LOGITS[name](changed) == LOGITS[name](x)).all() != bool(relevant[0, feature])


def test_the_switch_decides_which_four_features_are_relevant_and_is_relevant_itself():
    x, probability, relevant = generate("switch", 4000, generator())
    orange = relevant[:, 0]
    assert 0.45 < orange.float().mean() < 0.55
    assert relevant[orange].unique(dim=0).int().tolist() == [[1, 1, 1, 1, 0, 0, 0, 0, 0, 1]]
    assert relevant[~orange].unique(dim=0).int().tolist() == [[0, 0, 0, 0, 1, 1, 1, 1, 0, 1]]
    signs = np.where(orange.numpy(), 3, -3)
    assert stats.kstest(x[:, 9].numpy() - signs, "norm").pvalue > 1e-4
    assert stats.kstest(x[:, :9].numpy().ravel(), "norm").pvalue > 1e-4
    for row in (int(orange.nonzero()[0]), int((~orange).nonzero()[0])):
        values = x[row].double().numpy()
        logit = (values[:4] ** 2).sum() - 4
        if not orange[row]:
            logit = -100 * np.sin(0.2 * values[4]) + abs(values[5]) + values[6] + np.exp(-values[7]) - 2.4
        assert float(probability[row]) == pytest.approx(1 / (1 + np.exp(-logit)), abs=1e-5)


# The measures


@pytest.mark.parametrize(("k", "ideal"), [(2, 1.5), (4, 2.5), (5, 3.0)])
@pytest.mark.parametrize("sharp", [True, False], ids=["a set", "scores"])
def test_the_median_rank_of_a_perfect_selection_is_half_of_k_plus_1(k, ideal, sharp):
    rng = np.random.default_rng(0)
    relevant = rng.permuted(np.tile(np.arange(10) < k, (50, 1)), axis=1)
    scores = relevant[None] * (1.0 if sharp else rng.random((3, 50, 10)) + 1)
    assert (median_ranks(scores, relevant, rng.random((50, 10))) == ideal).all()


def test_median_ranks_by_hand():
    relevant = np.array([[True, True, False, False]])
    ties = np.array([[0.1, 0.9, 0.5, 0.2]])
    cases = {(4, 3, 2, 1): 1.5, (1, 2, 3, 4): 3.5, (9, 1, 5, 0): 2.0, (0, 0, 0, 0): 2.5, (0, 0, 1, 0): 3.0, (1, 0, 0, 0): 2.5}  # fmt: skip
    scores = np.array(list(cases), float)[:, None]
    assert median_ranks(scores, relevant, ties)[:, 0].tolist() == list(cases.values())


def test_random_selections_and_selections_of_everything_have_a_median_rank_of_5_and_a_half():
    rng = np.random.default_rng(0)
    relevant = np.tile(np.arange(10) < 4, (20000, 1))
    for scores in (rng.random((1, 20000, 10)), np.ones((1, 20000, 10)), rng.random((1, 20000, 10)) < 0.3):
        assert median_ranks(scores.astype(float), relevant, rng.random((20000, 10))).mean() == pytest.approx(
            5.5, abs=0.05
        )


def test_the_recovered_subset_by_hand():
    relevant = np.array([[1, 1, 0, 0], [0, 1, 1, 0]], bool)
    perfect, other = relevant, np.array([[1, 0, 0, 0], [1, 1, 1, 1]], bool)
    found = {name: values.tolist() for name, values in recovery(np.stack([perfect, other]), relevant).items()}
    assert found == {
        "exact": [1, 0],
        "precision": [1, (1 + 1 / 2) / 2],
        "recall": [1, (1 / 2 + 1) / 2],
        "explanation_size": [2, (1 + 4) / 2],
    }


def test_selected_shares_are_of_samples_with_the_same_relevant_features():
    relevant = np.array([[1, 0], [0, 1], [1, 0], [1, 0]], bool)
    selected = np.array([[[1, 0], [0, 1], [0, 1], [1, 1]]], bool)
    cases, shares = selected_shares(selected, relevant)
    assert cases.tolist() == [[False, True], [True, False]]
    np.testing.assert_allclose(shares, [[[0, 1], [2 / 3, 2 / 3]]])


# Networks and training


def sequential(networks, run):
    """The selector and predictor of a run as torch.nn modules."""
    activation = {nn.functional.relu: nn.ReLU, nn.functional.selu: nn.SELU}[networks.activation]

    def linear(layer):
        module = nn.Linear(layer.weight.shape[2], layer.weight.shape[1])
        module.load_state_dict({"weight": layer.weight[run].detach(), "bias": layer.bias[run, :, 0].detach()})
        return module

    first, second, last = (linear(layer) for layer in networks.selector)
    selector = nn.Sequential(first, activation(), second, activation(), last)
    first, second, last = (linear(layer) for layer in networks.predictor)
    norms = [nn.BatchNorm1d(200, eps=1e-3, momentum=1.0) for _ in range(2)]
    return selector, nn.Sequential(first, activation(), norms[0], second, activation(), norms[1], last)


@pytest.mark.parametrize("name", ["xor", "switch"])
def test_the_networks_are_those_of_chen_et_al(name):
    networks, x = (
        initial(generators_of([3, 4]), SETS[name].activation, CPU),
        torch.randn(2, 30, 10, generator=generator()),
    )
    assert sum(parameter.numel() for parameter in networks.parameters()) == 2 * (12210 + 42601 + 800)
    for run in range(2):
        selector, predictor = sequential(networks, run)
        torch.testing.assert_close(networks.scores(x)[run], selector(x[run]))
        torch.testing.assert_close(networks.answer(x, training=True)[run], predictor.train()(x[run])[:, 0], rtol=1e-4, atol=1e-5)  # fmt: skip
        later = x[:, :7]  # by the statistics of the batch before
        torch.testing.assert_close(networks.answer(later, training=False)[run], predictor.eval()(later[run])[:, 0], rtol=1e-3, atol=1e-4)  # fmt: skip
    squares = [m.weight.square().sum() for run in range(2) for net in sequential(networks, run) for m in net if isinstance(m, nn.Linear) and m.out_features != 10]  # fmt: skip
    assert networks.penalty().item() == pytest.approx(1e-3 * sum(squares).item(), rel=1e-5)


def test_the_predictor_sees_weighted_samples_in_training_and_selected_features_in_the_test():
    x, hard = torch.randn(1, 3, 10, generator=generator()), torch.zeros(1, 3, 10, dtype=torch.bool)
    hard[..., :2], hard[0, 0, 2:] = True, True
    torch.testing.assert_close(hard_input(L2X, hard, x), x * hard)
    torch.testing.assert_close(hard_input(BLA_T, hard, x)[0, 0], x[0, 0])  # all features: nothing changes
    torch.testing.assert_close(hard_input(BLA_T, hard, x)[0, 1], x[0, 1] * hard[0, 1] * 5)  # 2 of 10
    networks = initial(generators_of([0]), torch.relu, CPU)
    with torch.no_grad():
        networks.selector[-1].weight.zero_()
        networks.selector[-1].bias.fill_(1)  # all features at the bound, so that all weights are 1 / 10
    torch.testing.assert_close(soft_input(replace(BLA_T, threshold_factor=0), networks, x, []), x)
    torch.testing.assert_close(soft_input(BLA_T, networks, x, []), x * 0.02, rtol=1e-4, atol=1e-6)
    seen = (soft_input(L2X, networks, x, generators_of([1])) / x).round(decimals=1)
    assert ((seen >= 0) & (seen <= 1)).all()
    assert (seen.sum(dim=2) <= 2.1).all()  # two draws of nearly one feature each


@pytest.mark.parametrize("variant", [BLA_T, L2X], ids=["bla_t", "l2x"])
def test_a_run_is_the_same_alone_and_with_others(variant):
    together, alone = (train("xor", variant, 60, seeds, SCHEDULE, CPU) for seeds in ([5, 6, 7], [6]))
    for many, one in zip(together.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(many.view(3, -1)[1], one.view(-1), rtol=1e-3, atol=1e-4)


def test_both_methods_start_from_the_same_weights():
    still = replace(SCHEDULE, learning_rate=1e-30)
    for one, other in zip(*(train("xor", v, 60, [5], still, CPU).parameters() for v in (BLA_T, L2X)), strict=True):
        torch.testing.assert_close(one, other)


def test_a_loss_that_is_not_finite_is_one_clear_message():
    with pytest.raises(BlaError, match="not finite in epoch 1; lower the learning rate"):
        train("orange_skin", BLA_T, 60, [0], replace(SCHEDULE, learning_rate=1e30), CPU)


@pytest.mark.parametrize(("count", "batch_size"), [(60, 1), (61, 20), (21, 20), (1, 20)])
def test_a_batch_of_one_sample_cannot_be_normalised(count, batch_size):
    with pytest.raises(BlaError, match=f"{count} training samples in batches of {batch_size} leave one sample alone"):
        train("xor", BLA_T, count, [0], replace(SCHEDULE, batch_size=batch_size), CPU)


@pytest.mark.parametrize("variant", [BLA_T, L2X], ids=["bla_t", "l2x"])
def test_the_tables_have_a_row_per_run_and_a_row_per_feature(variant):
    test = generate("switch", 40, generator(1))
    table, features = evaluate("switch", variant, train("switch", variant, 60, [5, 6], SCHEDULE, CPU), test, 0)
    assert table["run"].tolist() == [0, 1]
    assert set(MEASURES) < set(table)
    assert (table["explanation_size"] == 2).all() or variant is BLA_T
    assert len(features) == 2 * 2 * 10  # runs, halves of the switch, features
    shares = features.groupby(["run", "case"])["selected"].sum()
    first = int(test.relevant[:, 0].sum())  # case 1 are the samples of orange_skin
    sizes = (shares.xs(0, level="case") * (40 - first) + shares.xs(1, level="case") * first) / 40
    np.testing.assert_allclose(sizes, table["explanation_size"])


@pytest.mark.slow
@pytest.mark.parametrize("variant", [BLA_T, replace(L2X, k=1)], ids=["bla_t", "l2x"])
def test_a_feature_that_decides_nearly_alone_is_found(variant):
    """In `additive`, x1 has a hundred times the weight of the others."""
    test = generate("additive", 500, generator(1))
    schedule = replace(SCHEDULE, batch_size=50, epochs=30)
    _, features = evaluate("additive", variant, train("additive", variant, 2000, [1, 2], schedule, CPU), test, 0)
    shares = features.groupby("feature")["selected"].mean()
    assert shares[1] > 0.8
    assert shares[1] == shares.max()


# Tables and picture


@pytest.fixture
def runs():
    """Eight runs of both methods on two sets, with measures drawn at random, in no order."""
    rng = np.random.default_rng(0)
    rows = [
        {"data": data, "method": method, "k": k, "run": run, "n_samples": 100}
        | {name: rng.random() for name in MEASURES}
        for data, k in (("orange_skin", 4), ("xor", 2))
        for method in METHODS
        for run in range(8)
    ]
    return pd.DataFrame(rows).sample(frac=1, random_state=0).sort_values("data", kind="stable")


def test_methods_are_compared_run_by_run_with_holms_p_over_the_sets(runs):
    table = differences(runs)
    assert len(table) == 2 * len(MEASURES)
    values = runs.query("data == 'xor'").pivot(index="run", columns="method", values="precision")
    row = table.query("data == 'xor' and measure == 'precision'").iloc[0]
    assert row["n_runs"] == 8
    assert row["difference"] == pytest.approx((values["bla_t"] - values["l2x"]).mean())
    assert row["p"] == pytest.approx(stats.wilcoxon(values["bla_t"], values["l2x"]).pvalue)
    for _, family in table.groupby("measure"):
        assert family["p_holm"].tolist() == pytest.approx(multipletests(family["p"], method="holm")[1])
    assert table["p_holm_smallest"].tolist() == [2 * 2 / 2**8] * len(table)


def test_means_standard_errors_and_the_ideal(runs):
    table = summary(runs)
    row = table.query("data == 'orange_skin' and method == 'l2x'").iloc[0]
    values = runs.query("data == 'orange_skin' and method == 'l2x'")["recall"]
    assert (row["recall"], row["recall_standard_error"]) == pytest.approx((values.mean(), values.sem()))
    assert (row["n_runs"], row["n_samples"]) == (8, 100)
    assert dict(zip(table["data"], table["ideal_median_rank"], strict=True)) == {"orange_skin": 2.5, "xor": 1.5}


@pytest.fixture
def features():
    """Selected shares of three features in eight runs."""
    rng = np.random.default_rng(1)
    rows = [
        {"data": data, "method": method, "case": 0, "run": run, "feature": feature, "relevant": feature < 3, "selected": rng.random()}
        for data in ("orange_skin", "xor")
        for method in METHODS
        for run in range(8)
        for feature in (1, 2, 3)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_selected_shares_are_averaged_over_runs(features):
    table = by_feature(features)
    assert len(table) == 2 * 2 * 3
    row = table.query("data == 'xor' and method == 'l2x' and feature == 2").iloc[0]
    values = features.query("data == 'xor' and method == 'l2x' and feature == 2")["selected"]
    assert (row["selected"], row["selected_standard_error"], row["n_runs"]) == pytest.approx((values.mean(), values.sem(), 8))  # fmt: skip


def test_the_picture_shows_every_run_and_frames_the_relevant_features(runs, features):
    figure = picture(runs, by_feature(features))
    assert [axis.get_title() for axis in figure.axes[:2]] == ["orange_skin", "xor"]
    assert figure.subfigs[0].get_suptitle().startswith("8 runs of each method")
    assert figure.subfigs[0].get_suptitle().endswith("100 test samples")
    shown = np.concatenate([dots.get_offsets()[:, 1] for dots in figure.axes[1].collections[:1]])
    expected = runs.query("data == 'xor' and method == 'bla_t'")["median_rank"]
    assert sorted(shown) == pytest.approx(sorted(expected))
    heat = figure.axes[2]
    assert len(heat.patches) == 4 * 2
    first = by_feature(features).query("data == 'orange_skin' and method == 'bla_t'")["selected"]
    np.testing.assert_allclose(np.asarray(heat.collections[0].get_array()).ravel()[:3], first)


# The stage


def test_the_stage_writes_the_same_tables_again(here, end_of, contents):
    assert end_of("subset_selection") is None
    first = contents(here / "reports/tables")
    assert set(first) == {f"subset_selection{ending}.csv" for ending in ("", "_features", "_runs", "_tests")}
    assert end_of("subset_selection") is None
    assert contents(here / "reports/tables") == first
    table = pd.read_csv(here / "reports/tables/subset_selection_runs.csv")
    assert len(table) == 4 * 2 * 2
    assert table.groupby(["data", "run"])["seed"].nunique().max() == 1
