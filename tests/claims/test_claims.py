"""The rules that judge the paper's claims, on columns whose answer is known."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from bla.base import paper
from bla.base.specs import Photographs
from bla.claims.further import ALTERNATIVES, SMALL_CNN, judge_alternatives, judge_l2x, judge_small_cnn
from bla.claims.judge import CLAIMS, NOT_RUN, Dataset, judge_claims
from bla.inference.paired import Column

PUBLISHED = pd.read_csv(Path(__file__).parent.parent / "data/published_values.csv")
RUNS, IMAGES = 20, 1000


def column(accuracy: float, loss: float, spread: float = 0.002, seed: int = 0, sizes=(3, 9)) -> Column:
    rng = np.random.default_rng(seed)
    correct = np.zeros((RUNS, IMAGES), bool)
    for run, count in enumerate(np.round((accuracy + rng.normal(0, spread, RUNS)) * IMAGES).astype(int)):
        correct[run, : min(count, IMAGES)] = True
    losses = np.repeat(loss * (1 + rng.normal(0, 5 * spread, (RUNS, 1))), IMAGES, axis=1)
    return Column(correct, losses, rng.integers(*sizes, (RUNS, IMAGES)).astype(np.int16))


def like_the_paper() -> dict[str, Column]:
    """Columns as Table 1 has them on birds, with a post-hoc variant that varies more."""
    return {
        "bl": column(0.68, 1.3, seed=1),
        "bl_plus": column(0.68, 1.3, seed=2),
        "l2x_f": column(0.64, 2.3, seed=3),
        "bla": column(0.673, 1.78, 0.0004, seed=4),
        "bla_t": column(0.68, 2.0, 0.0004, seed=5),
        "bla_ph": column(0.68, 2.0, 0.02, seed=6),
    }


def judge(columns: dict[str, Column], kind: str = "caltech_birds", classes: int = 200, **settings) -> pd.DataFrame:
    return judge_claims([Dataset("birds", kind, classes, columns, **settings)], PUBLISHED, 0.05, 999, 0)


def answers(table: pd.DataFrame, number: int) -> list[str]:
    return table.loc[table["claim"] == number, "holds_here"].tolist()


def test_columns_like_the_papers_reproduce_its_claims():
    table = judge(like_the_paper())
    for number in (1, 2, 3, 4, 7, 14, 16, 17):
        assert set(answers(table, number)) == {"yes"}, number
    assert set(answers(table, 6)) == {"yes"}
    judged = table[table["holds_here"] != ""]
    verdicts = {"yes": "reproduced", "no": "not reproduced", "inconclusive": "inconclusive"}
    assert (judged["verdict"] == judged["holds_here"].map(verdicts)).all()


def judged(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of claims that were tested."""
    return table[table["holds_here"] != ""]


def test_the_papers_birds_at_the_papers_settings_get_verdicts():
    images, schedule = Photographs("caltech_birds", **paper.IMAGES), paper.SCHEDULES["caltech_birds"]
    settings = {
        "departures": paper.departures(images, paper.BACKBONE, schedule, RUNS, paper.ALPHA),
        "variant_departures": paper.variant_departures(paper.VARIANTS),
    }
    table = judge(like_the_paper(), **settings)
    assert (judged(table)["verdict"] != "not run").all()
    assert (judged(table)["reason"] == "").all()
    pd.testing.assert_frame_equal(table, judge(like_the_paper()))


def test_what_is_claimed_of_birds_is_not_judged_on_dogs():
    assert 7 in set(judged(judge(like_the_paper()))["claim"])
    assert 7 not in set(judged(judge(like_the_paper(), kind="stanford_dogs"))["claim"])


def test_departures_leave_answers_and_take_verdicts_away_and_the_reason_lists_them():
    odd = ["epochs 3 (paper: 5)", "19 runs (paper: 20)"]
    wanted, table = judge(like_the_paper()), judge(like_the_paper(), departures=odd)
    assert set(judged(table)["reason"]) == {"not the paper's settings: epochs 3 (paper: 5), 19 runs (paper: 20)"}
    assert set(table["verdict"]) == {"not run"}
    answers_alone = ["claim", "text", "dataset", "paper", "ours", "test", "p", "holds_here"]
    pd.testing.assert_frame_equal(table[answers_alone], wanted[answers_alone])


@pytest.mark.parametrize(
    ("key", "spoilt"), [("l2x_f", {1, 2, 16, 17}), ("bla", {1, 2, 3, 4, 14}), ("bla_t", {3, 4, 5, 6, 7, 16}), ("bla_ph", {5, 6})]
)  # fmt: skip
def test_a_variant_that_departs_spoils_the_claims_about_it_alone(key, spoilt):
    told = f"{key}: temperature 0.5 (paper: 0.1)"
    table = judged(judge(like_the_paper(), variant_departures={"bla": [], key: [told]}))
    assert set(table.loc[table["verdict"] == "not run", "claim"]) == spoilt
    assert set(table.loc[table["verdict"] == "not run", "reason"]) == {f"not the paper's settings: {told}"}
    assert set(table.loc[table["verdict"] != "not run", "claim"]) == {1, 2, 3, 4, 5, 6, 7, 14, 16, 17} - spoilt


def test_departures_of_dataset_and_variants_are_told_one_after_the_other():
    settings = {
        "departures": ["epochs 3"],
        "variant_departures": {"l2x_f": ["k 3"], "bla": ["theta 1"], "bla_t": ["x"]},
    }
    row = judge(like_the_paper(), **settings).query("claim == 1").iloc[0]
    assert row["reason"] == "not the paper's settings: epochs 3, theta 1, k 3"


@pytest.mark.parametrize(
    "present", [(), ("bla_ph_released",), ("bla_ph_reloaded",), ("bla_ph_released", "bla_ph_reloaded")]
)
def test_claims_about_the_frozen_head_are_judged_for_every_reading_of_it_that_is_there(present):
    columns = like_the_paper() | {key: column(0.68, 2.0, 0.02, seed=8) for key in present}
    table = judge(columns).query("claim in (5, 6)")
    titles = {"bla_ph": "(BLA-PH)", "bla_ph_released": "(BLA-PH (released))", "bla_ph_reloaded": "(BLA-PH (reloaded))"}
    for key, title in titles.items():
        own = table[table["text"].str.contains(title, regex=False)]
        wanted = [5, 5, 6, 6] if key in ("bla_ph", *present) else []  # accuracy and loss
        assert own["claim"].tolist() == wanted
        # Which reading was published is not known: each stands beside the same value.
        assert own["paper"].str.contains("BLA-PH 0.6650 ± 0.0062").sum() == len(wanted) / 2
    assert len(table) == 4 + 4 * len(present)


def test_readings_of_the_frozen_head_get_answers_of_their_own():
    columns = like_the_paper()
    columns["bla_ph_released"] = columns["bla_t"]  # its head trains: the same runs
    table = judge(columns)
    rows = {
        title: table[table["text"].str.contains(f"({title})", regex=False)] for title in ("BLA-PH", "BLA-PH (released)")
    }
    assert set(rows["BLA-PH (released)"].query("claim == 5")["holds_here"]) == {"yes"}
    assert set(rows["BLA-PH (released)"].query("claim == 6")["holds_here"]) == {"inconclusive"}
    assert set(rows["BLA-PH"].query("claim == 6")["holds_here"]) == {"yes"}


def test_a_reading_that_departs_spoils_its_own_rows():
    columns = like_the_paper() | {"bla_ph_released": column(0.68, 2.0, 0.02, seed=8)}
    table = judge(columns, variant_departures={"bla_ph_released": ["odd"]}).query("claim in (5, 6)")
    spoilt = table["text"].str.contains("(BLA-PH (released))", regex=False)
    assert set(table.loc[spoilt, "verdict"]) == {"not run"}
    assert "not run" not in set(table.loc[~spoilt, "verdict"])


def test_columns_turned_around_refute_them():
    columns = like_the_paper()
    columns |= {"bl": columns["l2x_f"], "bl_plus": columns["l2x_f"], "l2x_f": columns["bl"]}
    columns |= {"bla": column(0.6, 2.2, sizes=(5, 6)), "bla_t": column(0.55, 1.5), "bla_ph": column(0.3, 1.0, 1e-5)}
    table = judge(columns)
    for number in (1, 2, 3, 4, 5, 6, 7, 14, 17):
        assert "no" in answers(table, number), number
    assert set(table.loc[table["holds_here"] == "no", "verdict"]) == {"not reproduced"}


def test_no_difference_needs_a_narrow_interval_and_is_inconclusive_with_a_wide_one():
    columns = like_the_paper()
    assert answers(judge(columns), 7) == ["yes", "yes"]
    columns["bla_t"] = column(0.68, 2.0, spread=0.03, seed=7)
    assert "inconclusive" in answers(judge(columns), 7)


def test_equal_columns_are_inconclusive_for_a_difference():
    columns = like_the_paper()
    columns["l2x_f"] = columns["bla"]
    table = judge(columns)
    assert answers(table, 1) == ["inconclusive", "inconclusive"]
    assert table.loc[table["claim"] == 1, "p"].tolist() == [1, 1]


@pytest.mark.parametrize(("classes", "text"), [(2, "leaves the accuracy on A"), (10, "raises the accuracy on B and C")])
def test_stand_ins_get_answers_but_no_verdict_and_stand_for_a_by_two_classes(classes, text):
    table = judge(like_the_paper(), "cluttered_digits", classes)
    judged = table[table["holds_here"] != ""]
    assert set(table["verdict"]) == {"not run"}
    assert set(judged["reason"]) == {"not one of the paper's datasets"}
    assert judged.loc[judged["claim"] == 3, "text"].str.contains(text).tolist() == [True]


def test_the_papers_values_stand_beside_ours():
    row = judge(like_the_paper()).query("claim == 1").iloc[0]
    assert row["paper"] == "C: BL 0.6794 ± 0.0007, BLA 0.6722 ± 0.0009, L2X-F 0.6451 ± 0.0012"
    assert "n = 20" in row["ours"]


def test_a_column_that_was_not_run_is_named():
    columns = like_the_paper()
    del columns["bla_ph"]
    row = judge(columns).query("claim == 5").iloc[0]
    assert (row["verdict"], row["reason"], row["holds_here"]) == ("not run", "BLA-PH not among the variants", "")


def test_all_twenty_claims_are_there():
    others = judge_small_cnn(small_cnn_runs(), [], PUBLISHED, 0.05, 999, 0)
    others += judge_l2x(l2x_runs(), {"cats": "cats_vs_dogs"}, {"cats": []}, PUBLISHED, 999, 0)
    datasets = [Dataset("birds", "caltech_birds", 200, like_the_paper())]
    others += judge_alternatives(alternative_runs(), datasets, 0.05)
    table = judge_claims(datasets, PUBLISHED, 0.05, 999, 0, others)
    assert sorted(set(table["claim"])) == list(range(1, 21))
    parts = [
        {c.number for c in CLAIMS},
        set(NOT_RUN),
        set(SMALL_CNN),
        {9},
        {number for number, _ in ALTERNATIVES.values()},
    ]
    assert set.union(*parts) == set(range(1, 21))
    assert sum(map(len, parts)) == 21  # ImageNet's is judged where ImageNet is


def alternative_runs(collapsed=20, logit=-1000.0, pointwise=30.0, bla=10.0, dataset="birds"):
    """Twenty runs of each: so many collapse to one cell at this logit; sizes spread a little around what is given."""
    run = np.arange(20)
    spread = np.where(run % 2, 0.5, -0.5) * (1 + run / 20)
    columns = {
        "bla": ("bounded_logits", bla + spread),
        "vector": ("concept_vector", np.where(run < collapsed, 1.0, 49.0)),
    }
    columns["sigmoid"] = ("pointwise", pointwise - spread)
    rows = []
    for variant, (explanation, size) in columns.items():
        table = pd.DataFrame({"variant": variant, "explanation": explanation, "run": run, "explanation_size": size})
        table["share_one_cell"], table["share_empty"] = (size == 1) * 0.96, 0.25
        rows.append(table.assign(median_largest_logit=np.where(size == 1, logit, 0)))
    return pd.concat(rows).assign(dataset=dataset, n_images=100)


def alternative_answers(kind="caltech_birds", departures=(), **numbers):
    datasets = [Dataset("birds", kind, 200, like_the_paper(), departures)]
    rows = judge_alternatives(alternative_runs(**numbers), datasets, 0.05)
    return {row["claim"]: (row.get("holds_here"), row["verdict"]) for row in rows}


def test_claims_about_the_modules_that_the_paper_gave_up():
    yes, no, unclear = ("yes", "reproduced"), ("no", "not reproduced"), ("inconclusive", "inconclusive")
    assert alternative_answers() == {11: yes, 12: yes}
    assert alternative_answers(logit=-99)[11] == no  # a single cell near the bound is no collapse
    assert alternative_answers(collapsed=15)[11] == yes  # p = 0.041
    assert alternative_answers(collapsed=14)[11] == unclear
    assert alternative_answers(collapsed=5)[11] == no
    assert alternative_answers(pointwise=5.0)[12] == no
    assert alternative_answers(pointwise=10.0)[12] == unclear
    assert alternative_answers(kind="cluttered_digits") == {11: ("yes", "not run"), 12: ("yes", "not run")}
    assert alternative_answers(departures=["epochs 3 (paper: 5)"])[12] == ("yes", "not run")
    assert alternative_answers(dataset="others") == {}


def test_a_module_that_was_not_trained_leaves_its_claim_with_a_reason():
    runs = alternative_runs()
    rows = judge_alternatives(runs[runs["variant"] != "sigmoid"], [], 0.05)
    assert [(row["claim"], row["verdict"], row["reason"]) for row in rows] == [
        (12, "not run", "`alternatives` trained none")
    ]


@pytest.mark.parametrize(("gained", "lost", "wanted"), [(40, 10, "yes"), (10, 40, "no"), (15, 15, "inconclusive")])
def test_imagenet_is_judged_by_the_images_that_one_column_alone_gets_right(gained, lost, wanted):
    """McNemar's test is a binomial test of the images on which the two differ; only run 0 is asked."""
    correct = np.zeros((2, 200), bool)
    correct[0, :100] = True
    other = correct.copy()
    other[0, :lost], other[0, 100 : 100 + gained] = False, True
    columns = {key: Column(correct, np.ones((2, 200))) for key in ("bl", "bl_plus")}
    columns["bla_t"] = Column(other, np.ones((2, 200)))
    table = judge(columns, kind="imagenet", classes=1000).query("claim == 13")
    assert table["holds_here"].tolist() == [wanted] * 2
    assert table["p"].tolist() == [pytest.approx(stats.binomtest(gained, gained + lost).pvalue)] * 2
    assert set(table["reason"]) == {"ImageNet 2012; the paper's is 2010"}
    assert "(run 0, n = 200 images)" in table["ours"].iloc[0]


def small_cnn_runs(data="mnist_3_vs_8", bl=0.994, bla_t=0.993, spread=0.001, runs=20):
    values = stats.norm.ppf((np.arange(runs) + 0.5) / runs)
    rows = [
        {"data": data, "pooling": "flat", "column": column, "n_images": 1984, "accuracy": mean + spread * value}
        for column, mean in (("bl", bl), ("bla_t", bla_t))
        for value in values
    ]
    return pd.DataFrame(rows)


def small_cnn_answers(*departures, **numbers):
    rows = judge_small_cnn(small_cnn_runs(**numbers), departures, PUBLISHED, 0.05, 999, 0)
    return {row["claim"]: (row.get("holds_here"), row["verdict"]) for row in rows}


def test_the_small_cnn_claims_of_mnist():
    """No difference needs p >= alpha and a narrow interval; to beat 0.958 a test and a larger mean."""
    yes, no, unclear = ("yes", "reproduced"), ("no", "not reproduced"), ("inconclusive", "inconclusive")
    assert small_cnn_answers(bla_t=0.9935, spread=0.002) == {8: yes, 15: yes}
    assert small_cnn_answers(bla_t=0.99) == {8: no, 15: yes}
    assert small_cnn_answers(bla_t=0.993, spread=0.02)[8] == unclear
    assert small_cnn_answers(bla_t=0.9)[15] == no
    assert small_cnn_answers(bla_t=0.958, spread=0.02)[15] == unclear


def test_the_small_cnn_on_other_data_or_settings_gets_no_verdict():
    close = {"bla_t": 0.9935, "spread": 0.002}
    assert small_cnn_answers("epochs 1 (paper: 3)", **close) == {8: ("yes", "not run"), 15: ("yes", "not run")}
    assert small_cnn_answers(data="digits_3_vs_8", **close) == {8: ("yes", "not run"), 15: (None, "not run")}
    (row, *_) = judge_small_cnn(small_cnn_runs(), [], PUBLISHED, 0.05, 999, 0)
    assert row["paper"] == "BL 0.994, BLA-T 0.993, p = 0.26"
    assert "n = 20 runs, 1984 images" in row["ours"]


def l2x_runs(soft=0.96, hard=0.5, spread=0.005, classes=2, left_out=0, runs=10, **reading):
    values = spread * stats.norm.ppf((np.arange(runs) + 0.5) / runs)
    table = pd.DataFrame({"run": range(runs), "soft_accuracy": soft + values, "hard_accuracy": hard + values})
    told = {"dataset": "cats", "reading": "multiplied", "background": "black", "straight_through": False} | reading
    return table.assign(**told, n_images=4653, n_images_left_out=left_out, n_classes=classes)


def l2x_rows(runs, departures=(), kind="cats_vs_dogs"):
    return judge_l2x(runs, {"cats": kind}, {"cats": departures}, PUBLISHED, 999, 0)


@pytest.mark.parametrize(
    ("numbers", "answer"),
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
def test_two_network_l2x_collapses_or_does_not(numbers, answer):
    verdicts = {"yes": "reproduced", "no": "not reproduced", "inconclusive": "inconclusive"}
    (row,) = l2x_rows(l2x_runs(**numbers))
    assert (row["holds_here"], row["verdict"]) == (answer, verdicts[answer])
    runs = l2x_runs(**numbers)
    assert row["p"] == pytest.approx(stats.wilcoxon(runs["hard_accuracy"] - 1 / runs["n_classes"]).pvalue)
    assert row["paper"] == "soft 0.96, hard 0.50"
    assert "n = 10 runs, 4653 images" in row["ours"]


def test_two_network_l2x_on_other_data_or_settings_gets_no_verdict():
    (row,) = l2x_rows(l2x_runs(), kind="image_folder")
    assert (row["holds_here"], row["verdict"], row["reason"]) == ("yes", "not run", "not the paper's dataset")
    (row,) = l2x_rows(l2x_runs(left_out=7), ["k 4 (paper: 8)"])
    told = "not the paper's settings: k 4 (paper: 8), 7 images left out (paper: none)"
    assert (row["holds_here"], row["verdict"], row["reason"]) == ("yes", "not run", told)


def test_only_readings_that_the_paper_may_mean_are_judged_and_there_is_always_a_row():
    grey = l2x_runs(reading="grey", background="mean")
    whole = l2x_runs(reading="whole", straight_through=True)
    divided = l2x_runs(hard=0.9, reading="divided")
    rows = l2x_rows(pd.concat([l2x_runs(), grey, whole, divided]))
    assert [row["text"].rpartition(": ")[2] for row in rows] == ["multiplied", "divided"]
    assert [row["holds_here"] for row in rows] == ["yes", "no"]
    for runs, reason in ((grey, "none of l2x.readings"), (l2x_runs().iloc[:0], "none of l2x.datasets")):
        (row,) = l2x_rows(runs)
        assert (row["claim"], row["verdict"]) == (9, "not run")
        assert row["reason"].startswith(reason)


def test_a_difference_whose_mean_and_ranks_disagree_is_inconclusive():
    columns = like_the_paper()
    correct = np.arange(IMAGES) < np.array([[601]] * 19 + [[570]])
    columns["l2x_f"] = Column(np.tile(np.arange(IMAGES) < 600, (RUNS, 1)), columns["l2x_f"].loss)
    columns["bla"] = Column(correct, columns["bla"].loss, columns["bla"].size)
    row = judge(columns).query("claim == 1").iloc[0]
    assert row["p"] < 0.001
    assert row["holds_here"] == "inconclusive"


def test_runs_that_differ_in_size_do_not_make_explanations_that_vary_from_image_to_image():
    columns = like_the_paper()
    constant = np.tile(np.arange(1, RUNS + 1)[:, None], (1, IMAGES)).astype(np.int16)
    columns["bla"] = Column(columns["bla"].correct, columns["bla"].loss, constant)
    assert answers(judge(columns), 14) == ["no"]


def test_a_column_that_does_not_vary_at_all_is_judged_without_an_interval():
    columns = like_the_paper()
    columns["bla_t"] = Column(np.ones((RUNS, IMAGES), bool), np.ones((RUNS, IMAGES)), columns["bla_t"].size)
    assert "nan" in judge(columns).query("claim == 6").iloc[0]["test"]
