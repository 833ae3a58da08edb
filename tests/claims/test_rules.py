"""The rules that judge the paper's claims, on tables with known answers."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from bla.claims.judge import judge_claims
from bla.claims.rules import COMPARABLE, Dataset, finds_as_well
from bla.experiments.runs import Column

RUNS, IMAGES = 20, 1000
LIME_RUNS, LIME_IMAGES = 5, 80


# Columns of Table 1


def test_columns_like_the_papers_reproduce_its_claims(like_the_paper, judge, answers):
    table = judge(like_the_paper)
    for number in (1, 2, 3, 4, 6, 7, 14, 16, 17):
        assert set(answers(table, number)) == {"yes"}, number


def test_swapped_columns_refute_the_claims(like_the_paper, column, judge, answers):
    columns = like_the_paper
    columns |= {"bl": columns["l2x_f"], "bl_plus": columns["l2x_f"], "l2x_f": columns["bl"]}
    columns |= {"bla": column(0.6, 2.2, sizes=(5, 6)), "bla_t": column(0.55, 1.5), "bla_ph": column(0.3, 1.0, 1e-5)}
    table = judge(columns).query("dataset == 'birds'")
    for number in (1, 2, 3, 4, 5, 6, 7, 14, 17):
        assert "no" in answers(table, number), number
    assert set(table.loc[table["holds_here"] == "no", "verdict"]) == {"not reproduced"}


def test_no_difference_needs_a_narrow_interval_and_is_inconclusive_with_a_wide_one(
    like_the_paper, column, judge, answers
):
    assert answers(judge(like_the_paper), 7) == ["yes", "yes"]
    wide = like_the_paper | {"bla_t": column(0.68, 2.0, spread=0.03, seed=7)}
    assert "inconclusive" in answers(judge(wide), 7)


def test_an_own_classifier_is_one_value_for_the_claims_about_bl(like_the_paper, judge, answers):
    bl = like_the_paper.pop("bl")
    del like_the_paper["bl_plus"]
    one = Column(bl.correct[:1], bl.loss[:1])
    table = judge(like_the_paper | {"bl": one})
    of_bl = table[table["text"].str.startswith("L2X-F is worse than BL: loss")].iloc[0]
    differences = like_the_paper["l2x_f"].loss.mean(axis=1) - one.loss.mean()
    assert of_bl["p"] == pytest.approx(stats.wilcoxon(differences, method="exact").pvalue)
    assert f"BL {one.loss.mean():.4f} (one value)" in of_bl["ours"]
    for number in (2, 17):
        assert set(answers(table, number)) - {""} == {"yes"}, number
    with_plus = table[table["text"].str.endswith("BL+")]
    assert set(with_plus["reason"]) == {"no BL+, since the classifier is your own"}


def test_equal_columns_are_inconclusive_for_a_difference(like_the_paper, judge, answers):
    table = judge(like_the_paper | {"l2x_f": like_the_paper["bla"]})
    assert answers(table, 1) == ["inconclusive", "inconclusive"]
    assert table.loc[table["claim"] == 1, "p"].tolist() == [1, 1]


def test_a_difference_whose_mean_and_ranks_disagree_is_inconclusive(like_the_paper, judge):
    columns = like_the_paper
    correct = np.arange(IMAGES) < np.array([[601]] * 19 + [[570]])
    columns["l2x_f"] = Column(np.tile(np.arange(IMAGES) < 600, (RUNS, 1)), columns["l2x_f"].loss)
    columns["bla"] = Column(correct, columns["bla"].loss, columns["bla"].size)
    row = judge(columns).query("claim == 1").iloc[0]
    assert row["p"] < 0.001
    assert row["holds_here"] == "inconclusive"


def test_size_differences_between_runs_do_not_count_as_variation_between_images(like_the_paper, judge, answers):
    bla = like_the_paper["bla"]
    constant = np.tile(np.arange(1, RUNS + 1)[:, None], (1, IMAGES)).astype(np.int16)
    table = judge(like_the_paper | {"bla": Column(bla.correct, bla.loss, constant)})
    assert answers(table, 14) == ["no"]


def spread_columns(like_the_paper, ph, t):
    """Columns whose mean losses are these values by run: `ph` of BLA-PH, `t` of BLA-T."""
    columns = dict(like_the_paper)
    for key, values in (("bla_ph", ph), ("bla_t", t)):
        loss = 5 + np.tile(np.array(values)[:, None], (1, IMAGES))
        columns[key] = Column(columns[key].correct, loss, columns[key].size)
    return columns


EVEN = [1.0] * 10 + [-1.0] * 10
STRAY = [*np.linspace(-0.1, 0.1, 19), 4.6]


@pytest.mark.parametrize(
    ("ph", "t", "holds"),
    [
        ([*1.1 * np.cos(np.arange(19)), 30.0], np.sin(np.arange(20)), "inconclusive"),
        (EVEN, STRAY, "inconclusive"),
        (STRAY, EVEN, "inconclusive"),
        ([*np.linspace(-0.1, 0.1, 19), 20.0], np.linspace(-1, 1, 20), "inconclusive"),
        (np.linspace(-3, 3, 20), np.sin(np.arange(20)) / 2, "yes"),
        (np.sin(np.arange(20)) / 2, np.linspace(-3, 3, 20), "no"),
        (np.linspace(-1, 1, 20), np.cos(np.arange(20)), "inconclusive"),
    ],
    ids=["a run off both", "a stray run of the other", "a stray run", "a run far off", "six times wider", "six times narrower", "alike"],
)  # fmt: skip
def test_a_single_run_does_not_decide_which_column_varies_more(ph, t, holds, like_the_paper, judge):
    table = judge(spread_columns(like_the_paper, ph, t)).query("claim == 6")
    assert table["holds_here"].tolist()[1] == holds


def test_a_column_that_does_not_vary_at_all_has_no_interval_and_no_answer(like_the_paper, judge):
    size = like_the_paper["bla_t"].size
    table = judge(like_the_paper | {"bla_t": Column(np.ones((RUNS, IMAGES), bool), np.ones((RUNS, IMAGES)), size)})
    assert "nan" in table.query("claim == 6").iloc[0]["test"]
    assert table.query("claim == 6").iloc[0]["holds_here"] == "inconclusive"


@pytest.mark.parametrize(("gained", "lost", "holds"), [(40, 10, "yes"), (10, 40, "no"), (15, 15, "inconclusive")])
def test_imagenet_is_judged_by_images_that_only_one_column_classifies_correctly(gained, lost, holds, judge):
    """McNemar's test is a binomial test on the images that only one of the two columns classifies correctly, in run 0."""
    correct = np.zeros((2, 200), bool)
    correct[0, :100] = True
    other = correct.copy()
    other[0, :lost], other[0, 100 : 100 + gained] = False, True
    columns = {key: Column(correct, np.ones((2, 200))) for key in ("bl", "bl_plus")}
    columns["bla_t"] = Column(other, np.ones((2, 200)))
    table = judge(columns, kind="imagenet", classes=1000).query("claim == 13")
    assert table["holds_here"].tolist() == [holds] * 2
    assert table["p"].tolist() == [pytest.approx(stats.binomtest(gained, gained + lost).pvalue)] * 2
    assert "run 0, n = 200 images" in table["ours"].iloc[0]


# Samples that are too small


def first_runs(columns, runs):
    return {key: Column(c.correct[:runs], c.loss[:runs], c.size[:runs]) for key, c in columns.items()}


@pytest.mark.parametrize(("runs", "holds"), [(3, "inconclusive"), (5, "inconclusive"), (6, "yes"), (8, "yes")])
def test_spreads_of_fewer_than_six_runs_have_no_interval_and_no_answer(runs, holds, like_the_paper, judge):
    """However clear the Pitman-Morgan test is: a bootstrap of 5 runs covers far less than 95 %."""
    wide, narrow = np.linspace(-9, 9, runs), np.cos(np.arange(runs)) / 9
    columns = spread_columns(first_runs(like_the_paper, runs), wide, narrow)
    row = judge(columns).query("claim == 6").iloc[1]
    assert row["holds_here"] == holds
    assert ("without an interval" in row["test"]) == (runs < 6)
    assert row["p"] < 0.05


@pytest.mark.parametrize(
    ("ph", "t"),
    [
        ([-9.077, -1.338, -1.192, 0.11, 0.686, 0.487, -0.027], [0, 1.688, 0, 1.688, 0, 0, 0]),
        ([3.906, -0.845, -0.184, 5.946, 0.371, -0.548], [0, 1.723, 1.723, 0, 0, 0]),
        ([0.017, 0.901, -0.034, -0.09, -1.089, -4.55], [0, 0, 0, 0.836, 0.836, 0]),
    ],
)
def test_spreads_without_an_interval_have_no_answer(ph, t, like_the_paper, judge):
    """In some resample all runs of BLA-T are equal; the other resamples' interval includes 1."""
    row = judge(spread_columns(first_runs(like_the_paper, len(t)), ph, t)).query("claim == 6").iloc[1]
    assert row["p"] < 0.05
    assert "[nan, nan]" in row["test"]
    assert row["holds_here"] == "inconclusive"


@pytest.mark.parametrize(("runs", "answers"), [(2, False), (5, False), (6, True)])
def test_a_claim_judged_by_p_is_inconclusive_if_its_runs_allow_no_small_p(runs, answers, like_the_paper, judge):
    table = judge(first_runs(like_the_paper, runs)).query("claim in (1, 4, 7, 14, 16, 17)")
    assert (table["holds_here"] != "inconclusive").any() == answers
    assert table["test"].str.contains(f"cannot answer: the sample allows no p below {2 / 2**runs:.2g}").all() != answers


@pytest.mark.parametrize(("images", "holds"), [(2, "inconclusive"), (5, "inconclusive"), (6, "yes")])
def test_imagenet_is_not_judged_by_a_handful_of_images(images, holds, judge):
    right, wrong = np.ones((2, images), bool), np.zeros((2, images), bool)
    columns = {"bl": wrong, "bl_plus": wrong, "bla_t": right}
    table = judge({key: Column(c, 1.0 * c) for key, c in columns.items()}, kind="imagenet", classes=1000)
    assert table.query("claim == 13")["holds_here"].tolist() == [holds] * 2


@pytest.mark.parametrize(("runs", "holds"), [(3, "inconclusive"), (4, "yes")])
def test_the_small_cnn_is_not_judged_by_three_runs(runs, holds, evidence, small_cnn):
    """Two groups of three have no p below 0.1; four have 2 / 70."""
    table = judge_claims(evidence(small_cnn=small_cnn(bla_t=0.9939, spread=0.0005, runs=runs)))
    (row,) = table.query("claim == 8").to_dict("records")
    assert row["holds_here"] == holds
    assert ("cannot answer" in row["test"]) == (holds == "inconclusive")


@pytest.mark.parametrize(("runs", "answers"), [(5, {"inconclusive"}), (6, {"yes"})])
def test_the_abandoned_modules_are_not_judged_by_five_runs(runs, answers, evidence, modules, like_the_paper):
    table = modules()
    dataset = Dataset("birds", "caltech_birds", 200, like_the_paper)
    judged = judge_claims(evidence([dataset], abandoned_modules=table[table["run"] < runs]))
    assert set(judged.query("claim in (11, 12)")["holds_here"]) == answers


@pytest.mark.parametrize(("runs", "holds"), [(2, "inconclusive"), (5, "inconclusive"), (6, "yes")])
def test_intervals_of_few_equal_runs_have_no_width_and_no_answer(
    runs, holds, like_the_paper, evidence, two_network, selection
):
    """Claims 2, 9 and 21: equal values give an interval of one point, which lies on one side of any limit."""
    right = {"bl": 680, "bl_plus": 680, "bla": 675, "l2x_f": 640}
    columns = first_runs(like_the_paper, runs)
    for key, count in right.items():
        columns[key] = Column(np.tile(np.arange(IMAGES) < count, (runs, 1)), columns[key].loss, columns[key].size)
    datasets = [Dataset("birds", "caltech_birds", 200, columns)]
    two, sets = two_network(spread=0.0, runs=runs), selection(spread=0.0, runs=runs)
    table = judge_claims(evidence(datasets, two_network_l2x=two, subset_selection=sets)).query("claim in (2, 9, 21)")
    assert table["holds_here"].tolist() == [holds] * 4
    few = f"cannot answer: the sample allows no p below {2 / 2**runs:.2g}"
    assert table["test"].str.endswith(few).tolist() == [holds == "inconclusive"] * 4


@pytest.mark.parametrize(("images", "holds"), [(2, "inconclusive"), (5, "inconclusive"), (6, "yes")])
def test_a_handful_of_images_is_not_comparable_with_lime(images, holds, claim_10):
    equal = np.full((LIME_RUNS, images), 0.4)
    assert claim_10("cats_vs_dogs", 2, equal, equal)["holds_here"].tolist() == [holds]


# Rank correlations with LIME


def correlated(mean, spread=0.1, seed=0):
    """Rank correlations of some runs and images with exactly this mean."""
    values = np.random.default_rng(seed).normal(0, spread, (LIME_RUNS, LIME_IMAGES))
    return values - values.mean() + mean


@pytest.fixture
def claim_10(evidence):
    """`claim_10(kind, classes, bla_t, cam)`: the cases of claim 10."""

    def make(kind, classes, bla_t, cam):
        ones = np.ones((LIME_RUNS, 20))
        columns = {key: Column(ones > 0, ones) for key in ("bl", "bl_plus", "bla_t")}
        dataset = Dataset("own", kind, classes, columns, with_lime={"lime": bla_t, "cam": cam, "bla_t": bla_t})
        table = judge_claims(evidence([dataset], resamples=199))
        return table[table["claim"] == 10].reset_index(drop=True)

    return make


@pytest.fixture
def answer(claim_10):
    """`answer(kind, bla_t, cam)`: holds_here and verdict of the only case."""

    def make(kind, bla_t, cam):
        (row,) = claim_10(kind, 10, bla_t, cam).itertuples()
        return row.holds_here, row.verdict

    return make


@pytest.mark.parametrize("kind", ["cats_vs_dogs", "stanford_dogs"])
def test_bla_t_is_comparable_with_cam_if_the_interval_of_the_difference_is_within_the_margin(kind, answer):
    cam = correlated(0.4)
    for ours in (0.4, 0.3, 0.5):
        assert answer(kind, correlated(ours, seed=1), cam) == ("yes", "reproduced")
    for ours in (0.7, 0.1):
        assert answer(kind, correlated(ours, seed=1), cam) == ("no", "not reproduced")
    for ours in (0.4 + COMPARABLE, 0.4 - COMPARABLE):
        assert answer(kind, correlated(ours, seed=1), cam) == ("inconclusive", "inconclusive")
    per_image = np.tile(np.random.default_rng(2).normal(0.4, 2, LIME_IMAGES), (LIME_RUNS, 1))
    assert answer(kind, per_image, cam) == ("inconclusive", "inconclusive")  # wide over images only


def test_bla_t_is_closer_to_lime_than_cam_only_if_ranks_and_means_agree(answer):
    cam = correlated(0.1)
    assert answer("caltech_birds", correlated(0.4, seed=1), cam) == ("yes", "reproduced")
    assert answer("caltech_birds", correlated(0.0, seed=1), cam) == ("no", "not reproduced")
    assert answer("caltech_birds", correlated(0.1, seed=1), cam) == ("inconclusive", "inconclusive")
    assert answer("caltech_birds", cam, cam) == ("inconclusive", "inconclusive")
    # most images slightly higher, a few much lower: ranks and mean disagree
    change = np.where(np.arange(LIME_IMAGES) < 6, -0.9, 0.05)
    assert stats.wilcoxon(change).pvalue < 0.05
    assert change.mean() < 0
    assert answer("caltech_birds", cam + change, cam) == ("inconclusive", "inconclusive")


@pytest.mark.parametrize("seed", range(5))
def test_equal_means_of_the_correlations_are_no_difference(seed, answer):
    cam = np.round(np.random.default_rng(seed).uniform(0, 1, (5, 80)), 2)
    assert answer("caltech_birds", cam[[1, 2, 3, 4, 0]], cam) == ("inconclusive", "inconclusive")


def test_claim_10_reports_means_errors_over_images_and_wilcoxons_p(claim_10):
    bla_t, cam = correlated(0.4, seed=1), correlated(0.1)
    p = stats.wilcoxon(bla_t.mean(axis=0), cam.mean(axis=0), method="exact").pvalue
    (row,) = claim_10("caltech_birds", 200, bla_t, cam).itertuples()
    told = [f"{v.mean():.3f} ± {stats.sem(v.mean(axis=0)):.3f}" for v in (cam, bla_t)]
    assert row.ours == f"CAM {told[0]}, BLA-T {told[1]} (n = 80 images, 5 runs)"
    assert row.p == pytest.approx(p)
    (row,) = claim_10("cats_vs_dogs", 2, bla_t, cam).itertuples()
    assert row.p == pytest.approx(p)
    assert f"±{COMPARABLE}" in row.test


@pytest.mark.parametrize("kind", ["cats_vs_dogs", "caltech_birds"])
def test_a_constant_map_counts_as_0_in_claim_10(kind, claim_10):
    bla_t, cam = correlated(0.4, seed=1), correlated(0.4)
    bla_t[:, :50], cam[2, 7] = np.nan, np.nan
    zeros = [np.where(np.isnan(values), 0, values) for values in (bla_t, cam)]
    left, right = claim_10(kind, 10, bla_t, cam), claim_10(kind, 10, *zeros)
    pd.testing.assert_frame_equal(left, right)
    assert "nan" not in left["ours"][0]
    assert left["holds_here"].tolist() == ["no"]


# Other experiments


def test_claims_about_the_abandoned_modules(evidence, modules, like_the_paper, answers):
    def found(**numbers):
        datasets = [Dataset("birds", "caltech_birds", 200, like_the_paper)]
        return answers(judge_claims(evidence(datasets, abandoned_modules=modules(**numbers))))

    yes, no, unclear = ("yes", "reproduced"), ("no", "not reproduced"), ("inconclusive", "inconclusive")
    assert (found()[11], found()[12]) == (yes, yes)
    assert found(logit=-99)[11] == no  # a single cell near the bound is no collapse
    assert found(collapsed=15)[11] == yes  # p = 0.041
    assert found(collapsed=14)[11] == unclear
    assert found(collapsed=5)[11] == no
    assert found(pointwise=5.0)[12] == no
    assert found(pointwise=10.0)[12] == unclear


def test_the_small_cnn_claims_of_mnist(evidence, small_cnn, answers):
    """ "No difference" needs p >= alpha and a narrow interval; "better than 0.958" needs a test and a larger mean."""

    def found(**numbers):
        return answers(judge_claims(evidence(small_cnn=small_cnn(**numbers))))

    yes, no, unclear = ("yes", "reproduced"), ("no", "not reproduced"), ("inconclusive", "inconclusive")
    close = found(bla_t=0.9935, spread=0.002)
    assert (close[8], close[15]) == (yes, yes)
    below = found(bla_t=0.99)
    assert (below[8], below[15]) == (no, yes)
    assert found(bla_t=0.993, spread=0.02)[8] == unclear
    assert found(bla_t=0.9)[15] == no
    assert found(bla_t=0.958, spread=0.02)[15] == unclear


@pytest.mark.parametrize(
    ("numbers", "holds"),
    [
        ({}, "yes"),
        ({"hard": 0.54}, "yes"),
        ({"hard": 0.9}, "no"),
        ({"hard": 0.4}, "no"),
        ({"soft": 0.8}, "no"),
        ({"hard": 0.55, "spread": 0.03}, "inconclusive"),
        ({"soft": 0.9, "spread": 0.03}, "inconclusive"),
        ({"hard": 0.1, "classes": 10}, "yes"),
        ({"classes": 10}, "no"),
    ],
    ids=str,
)
def test_collapse_of_two_network_l2x_is_judged_by_the_hard_accuracy(numbers, holds, evidence, two_network):
    runs = two_network(**numbers)
    (row,) = judge_claims(evidence(two_network_l2x=runs)).query("claim == 9").to_dict("records")
    verdicts = {"yes": "reproduced", "no": "not reproduced", "inconclusive": "inconclusive"}
    assert (row["holds_here"], row["verdict"]) == (holds, verdicts[holds])
    assert row["p"] == pytest.approx(stats.wilcoxon(runs["hard_accuracy"] - 1 / runs["n_classes"]).pvalue)
    assert "n = 10 runs, 4653 images" in row["ours"]


@pytest.mark.parametrize(
    ("empty", "size", "holds"),
    [
        ([1.0] * 20, 0.0, "inconclusive"),
        ([0.9] * 20, 3.0, "inconclusive"),
        ([*[0.0] * 19, 1.0], 30.0, "inconclusive"),
        ([*[0.0] * 10, *[0.98] * 10], 3.0, "inconclusive"),
        ([*[0.0] * 19, 0.999], 3.0, "inconclusive"),
        ([0.4] * 20, 18.0, "yes"),
        ([0.0] * 20, 5.0, "no"),
    ],
    ids=[
        "all empty",
        "mostly empty",
        "a run all empty",
        "half of the runs mostly empty",
        "a run nearly all empty",
        "30 cells where there are any",
        "fewer cells",
    ],
)
def test_an_empty_explanation_is_not_a_focused_one(empty, size, holds, evidence, modules, like_the_paper, answers):
    table = modules(pointwise=size)
    pointwise = table["variant"] == "sigmoid"
    table.loc[pointwise, "share_empty"] = empty
    dataset = Dataset("birds", "caltech_birds", 200, like_the_paper)
    judged = judge_claims(evidence([dataset], abandoned_modules=table))
    assert answers(judged, 12) == [holds]


# Our own claim


@pytest.mark.parametrize(
    ("numbers", "holds"),
    [
        ({}, "yes"),
        ({"bla_t": 1.6, "l2x": 2.6}, "yes"),  # better
        ({"bla_t": 2.7, "l2x": 2.6}, "yes"),  # worse, but by less than the margin
        ({"bla_t": 3.6, "l2x": 2.6}, "no"),
        ({"bla_t": 2.85, "l2x": 2.6}, "inconclusive"),  # at the margin
        ({"spread": 1.0}, "inconclusive"),
        ({"bla_t": 5.5, "l2x": 5.5}, "inconclusive"),  # as well as L2X, and both like random features
        ({"bla_t": 5.7, "l2x": 5.7}, "no"),
    ],
    ids=str,
)
def test_median_ranks_are_judged_by_the_interval_of_the_paired_difference(numbers, holds, selection):
    runs = selection(**numbers)
    found = finds_as_well(runs.sample(frac=1, random_state=0), 0.05)
    assert found.holds_here == holds
    bla_t, l2x = (runs.loc[runs["method"] == name, "median_rank"].to_numpy() for name in ("bla_t", "l2x"))
    assert found.p == pytest.approx(stats.wilcoxon((bla_t - l2x).round(9)).pvalue)
    low, high = stats.t.interval(0.95, 19, (bla_t - l2x).mean(), stats.sem(bla_t - l2x))
    assert f"[{low:.4f}, {high:.4f}] below 0.25" in found.test
    assert found.ours.endswith("(n = 20 runs, 1000 samples)")
