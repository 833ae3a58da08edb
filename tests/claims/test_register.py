"""Where claims are tested, the paper's values beside them, and obstacles to a verdict."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from bla.claims.judge import judge_claims
from bla.claims.register import CLAIMS
from bla.claims.rules import Dataset
from bla.experiments.runs import Column


def test_all_twenty_claims_are_in_the_papers_order_and_ours_follow(evidence, modules, selection, like_the_paper):
    datasets = [Dataset("birds", "caltech_birds", 200, like_the_paper)]
    table = judge_claims(evidence(datasets, abandoned_modules=modules(), subset_selection=selection()))
    assert list(dict.fromkeys(table["claim"])) == [*range(1, 21), 21]  # no agreement was measured
    assert list(dict.fromkeys(number for number, _ in CLAIMS)) == [*range(1, 21), 21, 22]
    assert not table.isna().drop(columns="p").any(axis=None)


def test_a_claim_about_birds_is_not_judged_on_dogs(like_the_paper, judge):
    for kind, is_there in (("caltech_birds", True), ("stanford_dogs", False)):
        assert (7 in set(judge(like_the_paper, kind=kind)["claim"])) == is_there


@pytest.mark.parametrize(("classes", "text"), [(2, "leaves the accuracy on A"), (10, "raises the accuracy on B and C")])
def test_stand_ins_get_answers_but_no_verdict_and_replace_dataset_a_if_they_have_two_classes(
    classes, text, like_the_paper, judge
):
    table = judge(like_the_paper, "painted_birds", classes).query("dataset == 'birds'")
    tested = table[table["holds_here"] != ""]
    assert set(table["verdict"]) == {"not run"}
    assert set(tested["reason"]) == {"not one of the paper's datasets"}
    assert tested.loc[tested["claim"] == 3, "text"].str.contains(text).tolist() == [True]


def test_the_papers_values_are_beside_ours(like_the_paper, judge):
    row = judge(like_the_paper).query("claim == 1").iloc[0]
    assert row["paper"] == "C: BL 0.6794 ± 0.0007, BLA 0.6722 ± 0.0009, L2X-F 0.6451 ± 0.0012"
    assert "n = 20" in row["ours"]


def test_a_column_that_was_not_run_is_named(like_the_paper, judge):
    del like_the_paper["bla_ph"]
    row = judge(like_the_paper).query("claim == 5").iloc[0]
    assert (row["verdict"], row["holds_here"]) == ("not run", "")
    assert row["reason"] == "BLA-PH not among the variants"


@pytest.mark.parametrize(
    "present", [(), ("bla_ph_released",), ("bla_ph_reloaded",), ("bla_ph_released", "bla_ph_reloaded")]
)
def test_claims_about_the_frozen_head_are_judged_for_every_reading_that_ran(present, like_the_paper, column, judge):
    columns = like_the_paper | {key: column(0.68, 2.0, 0.02, seed=8) for key in present}
    table = judge(columns).query("claim in (5, 6)")
    titles = {"bla_ph": "(BLA-PH)", "bla_ph_released": "(BLA-PH (released))", "bla_ph_reloaded": "(BLA-PH (reloaded))"}
    for key, title in titles.items():
        own = table[table["text"].str.contains(title, regex=False)]
        claims = [5, 5, 6, 6] if key in ("bla_ph", *present) else []  # accuracy and loss
        assert own["claim"].tolist() == claims
        # The paper does not say which reading it used: all are compared with the same value.
        assert own["paper"].str.contains("BLA-PH 0.6650 ± 0.0062").sum() == len(claims) / 2
    assert len(table) == 4 + 4 * len(present)


def test_each_reading_of_the_frozen_head_gets_its_own_answer(like_the_paper, judge):
    columns = like_the_paper | {"bla_ph_released": like_the_paper["bla_t"]}  # its head trains, so the runs are the same
    table = judge(columns)
    rows = {
        title: table[table["text"].str.contains(f"({title})", regex=False)] for title in ("BLA-PH", "BLA-PH (released)")
    }
    assert set(rows["BLA-PH (released)"].query("claim == 5")["holds_here"]) == {"yes"}
    assert set(rows["BLA-PH (released)"].query("claim == 6")["holds_here"]) == {"inconclusive"}
    assert set(rows["BLA-PH"].query("claim == 6")["holds_here"]) == {"yes"}
    released = rows["BLA-PH (released)"].query("verdict != 'not run'")["reason"]
    assert released.str.contains("the head trains").all()


@pytest.mark.parametrize(
    ("key", "spoilt"), [("l2x_f", {1, 2, 16, 17}), ("bla", {1, 2, 3, 4, 14}), ("bla_t", {3, 4, 5, 6, 7, 16}), ("bla_ph", {5, 6})]
)  # fmt: skip
def test_a_variant_that_departs_invalidates_only_claims_about_this_variant(key, spoilt, like_the_paper, judge):
    departure = f"{key}: temperature 0.5 (paper: 0.1)"
    table = judge(like_the_paper, variant_departures={"bla": [], key: [departure]})
    tested = table[(table["holds_here"] != "") & (table["dataset"] == "birds")]
    not_run = tested["verdict"] == "not run"
    assert set(tested.loc[not_run, "claim"]) == spoilt
    assert tested.loc[not_run, "reason"].str.endswith(departure).all()
    assert set(tested.loc[~not_run, "claim"]) == {1, 2, 3, 4, 5, 6, 7, 14, 16, 17} - spoilt


def test_departures_of_the_dataset_come_before_those_of_variants(like_the_paper, judge):
    departing = {"l2x_f": ["k 3"], "bla": ["theta 1"], "bla_t": ["x"]}
    row = judge(like_the_paper, departures=["epochs 3"], variant_departures=departing).query("claim == 1").iloc[0]
    assert row["reason"].endswith(": epochs 3, theta 1, k 3")


def test_a_reading_that_departs_invalidates_only_its_rows(like_the_paper, column, judge):
    columns = like_the_paper | {"bla_ph_released": column(0.68, 2.0, 0.02, seed=8)}
    table = judge(columns, variant_departures={"bla_ph_released": ["x"]}).query("claim in (5, 6)")
    spoilt = table["text"].str.contains("(BLA-PH (released))", regex=False)
    assert set(table.loc[spoilt, "verdict"]) == {"not run"}
    assert "not run" not in set(table.loc[~spoilt, "verdict"])


def test_imagenet_2012_gets_an_answer_and_no_verdict(judge):
    columns = {key: Column(np.ones((2, 20), bool), np.ones((2, 20))) for key in ("bl", "bl_plus", "bla_t")}
    table = judge(columns, kind="imagenet", classes=1000).query("claim == 13")
    assert table["text"].tolist() == [f"on ImageNet BLA-T beats {title}" for title in ("BL", "BL+")]
    assert set(table["verdict"]) == {"not run"}
    assert table["reason"].str.contains("2012").all()


def test_without_imagenet_claim_13_says_what_it_needs(judge, like_the_paper):
    (row,) = judge(like_the_paper).query("claim == 13").to_dict("records")
    assert (row["verdict"], row["dataset"]) == ("not run", "")
    assert "ImageNet" in row["reason"]


# Rank correlations with LIME


def with_lime(kind="caltech_birds", classes=200, bla_t=0.4, cam=0.1, **about):
    rng, ones = np.random.default_rng(0), np.ones((5, 20))
    columns = {key: Column(ones > 0, ones) for key in ("bl", "bl_plus", "bla_t")}
    noise = rng.normal(0, 0.1, (2, 5, 80))
    noise -= noise.mean(axis=(1, 2), keepdims=True)
    about = {"with_lime": {"cam": cam + noise[0], "bla_t": bla_t + noise[1]}} | about
    return Dataset("own", kind, classes, columns, **about)


@pytest.fixture
def judged(evidence):
    """`judged(dataset)`: the table of claims."""
    return lambda dataset: judge_claims(evidence([dataset], resamples=199))


@pytest.mark.parametrize(
    ("kind", "classes", "rules"),
    [
        ("cats_vs_dogs", 2, ["A and B"]),
        ("stanford_dogs", 120, ["A and B"]),
        ("caltech_birds", 200, ["C"]),
        ("painted_birds", 2, ["A and B"]),
        ("painted_birds", 10, ["A and B", "C"]),
    ],
)
def test_claim_10_has_a_case_for_a_and_b_and_one_for_c_and_stand_ins_follow_their_number_of_classes(
    kind, classes, rules, judged
):
    table = judged(with_lime(kind, classes, 0.4, 0.4)).query("claim == 10")
    assert [text.rpartition(" on ")[2] for text in table["text"]] == rules
    if kind == "painted_birds":
        assert set(table["verdict"]) == {"not run"}
        assert set(table["reason"]) == {"not one of the paper's datasets"}
        assert set(table["holds_here"]) <= {"yes", "inconclusive"}


@pytest.mark.parametrize(
    ("kind", "paper"), [("caltech_birds", "C: CAM 0.08, BLA-T 0.37"), ("cats_vs_dogs", "A: CAM 0.47, BLA-T 0.37")]
)
def test_the_papers_correlations_are_beside_ours(kind, paper, judged):
    assert judged(with_lime(kind)).query("claim == 10")["paper"].tolist() == [paper]


@pytest.mark.parametrize(("kind", "bla_t", "cam"), [("cats_vs_dogs", 0.45, 0.4), ("caltech_birds", 0.45, 0.4)])
def test_departures_of_lime_remove_only_the_verdict_of_claim_10(kind, bla_t, cam, judged):
    departures = ["300 patterns of LIME (paper: 1000)"]
    tables = [judged(with_lime(kind, 10, bla_t, cam, lime_departures=told)) for told in ([], departures)]
    (before,), (after,) = (table.query("claim == 10").to_dict("records") for table in tables)
    assert (before["holds_here"], before["verdict"]) == ("yes", "reproduced")
    assert (after["holds_here"], after["verdict"]) == ("yes", "not run")
    assert after["reason"].endswith(departures[0])
    pd.testing.assert_frame_equal(*(table.query("claim != 10") for table in tables))


@pytest.mark.parametrize("kind", ["cats_vs_dogs", "stanford_dogs", "caltech_birds"])
@pytest.mark.parametrize("images", [2, 5, 16])
def test_claim_10_gets_no_verdict_from_some_of_the_test_images(kind, images, judged):
    """Even if the correlations of two images happen to agree with the paper's."""
    dataset = with_lime(kind, 10, 0.4, 0.4 if kind != "caltech_birds" else 0.1)
    few = {name: values[:, :images] for name, values in dataset.with_lime.items()}
    (row,) = judged(replace(dataset, with_lime=few)).query("claim == 10").to_dict("records")
    assert row["verdict"] == "not run"
    assert row["reason"] == f"not the paper's settings: LIME of {images} images (paper: of all 20)"
    (row,) = judged(dataset).query("claim == 10").to_dict("records")
    assert (row["holds_here"], row["verdict"]) == ("yes", "reproduced")


@pytest.mark.parametrize("images", [2, 3])
def test_random_numbers_of_two_images_answer_nothing_about_lime(images, judged):
    rng, answers = np.random.default_rng(0), []
    for _ in range(40):
        values = rng.uniform(-1, 1, (2, 5, images))
        table = judged(with_lime("cats_vs_dogs", 2, with_lime={"cam": values[0], "bla_t": values[1]}))
        answers += table.query("claim == 10")["holds_here"].tolist()
    assert answers.count("inconclusive") >= 38


def test_without_correlations_claim_10_is_not_run(judged):
    (row,) = judged(with_lime(with_lime={})).query("claim == 10").to_dict("records")
    assert (row["holds_here"], row["verdict"]) == ("", "not run")
    assert "LIME" in row["reason"]


# Other experiments


def test_abandoned_modules_with_other_data_or_settings_get_no_verdict(evidence, modules, like_the_paper):
    def rows(kind="caltech_birds", departures=(), dataset="birds"):
        datasets = [Dataset("birds", kind, 200, like_the_paper, departures)]
        table = judge_claims(evidence(datasets, abandoned_modules=modules(dataset=dataset)))
        return table.query("claim in (11, 12)").to_dict("records")

    for found, reason in ((rows(kind="painted_birds"), "paper's datasets"), (rows(departures=["x 3"]), "x 3")):
        assert [row["claim"] for row in found] == [11, 12]
        assert [(row["holds_here"], row["verdict"]) for row in found] == [("yes", "not run")] * 2
        assert all(reason in row["reason"] for row in found)
    assert rows(dataset="others") == []


@pytest.mark.parametrize(("variant", "claim"), [("vector", 11), ("sigmoid", 12)])
@pytest.mark.parametrize("departure", ["temperature 3.7 (paper: 0.1)", "head frozen (paper: trained)"])
def test_the_settings_of_an_abandoned_module_remove_only_its_verdict(
    variant, claim, departure, evidence, modules, like_the_paper
):
    departures = {"vector": [], "sigmoid": []} | {variant: [departure]}
    datasets = [Dataset("birds", "caltech_birds", 200, like_the_paper)]
    table = judge_claims(evidence(datasets, abandoned_modules=modules(), abandoned_departures=departures))
    rows = table.query("claim in (11, 12)").set_index("claim")
    assert rows["holds_here"].tolist() == ["yes", "yes"]
    assert rows.loc[claim, "verdict"] == "not run"
    assert rows.loc[claim, "reason"] == f"not the paper's settings: {departure}"
    assert rows["verdict"].drop(claim).tolist() == ["reproduced"]


def test_the_claim_about_an_untrained_module_gets_a_reason(evidence, modules):
    runs = modules()
    table = judge_claims(evidence(abandoned_modules=runs[runs["variant"] != "sigmoid"])).query("claim in (11, 12)")
    assert table[["claim", "verdict"]].to_numpy().tolist() == [[12, "not run"]]
    assert "abandoned_modules" in table["reason"].item()


def test_the_small_cnn_with_other_data_or_settings_gets_no_verdict(evidence, small_cnn, answers):
    close = {"bla_t": 0.9935, "spread": 0.002}
    found = answers(judge_claims(evidence(small_cnn=small_cnn(**close), small_cnn_departures=["epochs 1 (paper: 3)"])))
    assert (found[8], found[15]) == (("yes", "not run"), ("yes", "not run"))
    found = answers(judge_claims(evidence(small_cnn=small_cnn(data="digits_3_vs_8", **close))))
    assert (found[8], found[15]) == (("yes", "not run"), ("", "not run"))


def test_the_papers_accuracies_on_mnist_are_beside_ours(evidence):
    table = judge_claims(evidence())
    (row,) = table.query("claim == 8").to_dict("records")
    assert row["paper"] == "BL 0.994, BLA-T 0.993, p = 0.26"
    assert "n = 20 runs, 1984 images" in row["ours"]
    assert table.query("claim == 15")["paper"].tolist() == ["BLA-T 0.993, L2X 0.958"]


def test_two_network_l2x_with_other_data_or_settings_gets_no_verdict(evidence, two_network):
    (row,) = judge_claims(evidence(kinds={"cats": "image_folder"})).query("claim == 9").to_dict("records")
    assert (row["holds_here"], row["verdict"]) == ("yes", "not run")
    assert "dataset" in row["reason"]
    given = {"two_network_l2x": two_network(left_out=7), "two_network_l2x_departures": {"cats": ["k 4 (paper: 8)"]}}
    (row,) = judge_claims(evidence(**given)).query("claim == 9").to_dict("records")
    assert (row["holds_here"], row["verdict"]) == ("yes", "not run")
    assert row["reason"].endswith("k 4 (paper: 8), 7 images left out (paper: none)")


@pytest.mark.parametrize(
    ("temperature", "verdict"),
    [(0.1, "reproduced"), (10, "reproduced"), (3.7, "not run"), (1, "not run"), (0.01, "not run")],
)
def test_claim_9_gets_a_verdict_only_at_a_temperature_that_the_paper_may_mean(
    temperature, verdict, evidence, two_network
):
    table = judge_claims(evidence(two_network_l2x=two_network(temperature=temperature)))
    (row,) = table.query("claim == 9").to_dict("records")
    assert (row["holds_here"], row["verdict"]) == ("yes", verdict)
    told = f"not the paper's settings: temperature {temperature:g} (paper: 0.1 or 10)"
    assert row["reason"] == ("" if verdict == "reproduced" else told)


def test_only_possible_readings_of_the_paper_are_judged(evidence, two_network):
    grey = two_network(reading="grey", background="mean")
    whole = two_network(reading="whole", straight_through=True)
    divided = two_network(hard=0.9, reading="divided")
    table = judge_claims(evidence(two_network_l2x=pd.concat([two_network(), grey, whole, divided])))
    rows = table.query("claim == 9").to_dict("records")
    assert [row["text"].rpartition(": ")[2] for row in rows] == ["multiplied", "divided"]
    assert [row["holds_here"] for row in rows] == ["yes", "no"]
    assert {row["paper"] for row in rows} == {"soft 0.96, hard 0.50"}


@pytest.mark.parametrize(
    ("rows", "setting"), [(slice(None), "two_network_l2x.readings"), (slice(0), "two_network_l2x.datasets")]
)
def test_if_no_possible_reading_ran_claim_9_names_the_setting(rows, setting, evidence, two_network):
    runs = two_network(reading="grey", background="mean")[rows]
    (row,) = judge_claims(evidence(two_network_l2x=runs)).query("claim == 9").to_dict("records")
    assert (row["verdict"], row["paper"]) == ("not run", "soft 0.96, hard 0.50")
    assert setting in row["reason"]


def test_our_claim_has_an_answer_for_each_synthetic_set_but_no_verdict_on_the_paper(evidence, selection):
    sets = [selection(), selection(bla_t=4, data="xor"), selection(spread=1, data="switch")]
    table = judge_claims(evidence(subset_selection=pd.concat(sets))).query("claim == 21")
    assert table["holds_here"].tolist() == ["yes", "no", "inconclusive"]
    assert [text.rpartition(", ")[2] for text in table["text"]] == ["orange_skin", "xor", "switch"]
    assert table["text"].str.contains("our claim").all()
    assert set(table["verdict"]) == {"not run"}
    assert set(table["reason"]) == {"our claim, not the paper's"}


@pytest.mark.parametrize(
    ("changes", "answer"),
    [
        ({}, "yes"),
        ({"difference": -0.4, "difference_low": -0.5, "difference_high": -0.3, "rank_biserial": -0.9}, "no"),
        ({"p": 0.06}, "inconclusive"),
        ({"difference_low": -0.1}, "inconclusive"),
        ({"p": 0.04, "p_smallest": 0.06}, "inconclusive"),
        ({"rank_biserial": -0.3}, "inconclusive"),
        ({"difference": -0.4, "difference_low": -0.5, "difference_high": -0.3, "rank_biserial": 0.3}, "inconclusive"),
        ({"rank_biserial": 0.0, "p": 0.04}, "inconclusive"),
    ],
)
def test_the_claim_about_runs_needs_a_small_p_and_an_interval_on_one_side(changes, answer, evidence):
    row = {"dataset": "d", "title": "BLA", "same": 0.7, "other_image": 0.3, "difference": 0.4, "difference_low": 0.3}
    row |= {"difference_high": 0.5, "n_runs": 20, "n_images_compared": 40, "p": 1e-9, "p_smallest": 1e-12}
    row |= {"rank_biserial": 0.9}
    untested = row | {"title": "one run", "p": np.nan}
    (case,) = (
        judge_claims(evidence(agreement=pd.DataFrame([row | changes, untested]))).query("claim == 22").itertuples()
    )
    assert (case.holds_here, case.verdict, case.dataset) == (answer, "not run", "d")
    assert case.text.endswith("(our claim): BLA")
