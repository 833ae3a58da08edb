"""The user study's analysis, on synthetic participants with counted answers."""

import json
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from participants import synthetic_answers
from scipy import stats

from bla.base.errors import BlaError
from bla.experiments.explanations.user_study import protocol
from bla.experiments.explanations.user_study.answers import Person, comparisons, read_answers
from bla.experiments.explanations.user_study.figures import PEOPLE, figure_four, figure_seven, participants
from bla.experiments.explanations.user_study.tables import (
    demographics,
    excluded_table,
    exclusions,
    prediction_tests,
    preference_tests,
    preferences,
)

PUBLISHED = pd.read_csv(Path(__file__).parents[2] / "data/published_values.csv")
B, O, E = "bla_t", "other", "equal"  # noqa: E741
FIRST = {"grad_cam": [B, B, B, O], "l2x_f": [B, B, O, E], "other_image": [B, B, B, B]}
SECOND = {"grad_cam": [B, O, E, E], "l2x_f": [O, O, O, O], "other_image": [B, B, E, O]}
SHARES = {"grad_cam": (4 / 8, 2 / 8, 2 / 8), "l2x_f": (2 / 8, 5 / 8, 1 / 8), "other_image": (6 / 8, 1 / 8, 1 / 8)}
"""Counted by hand in FIRST and SECOND: BLA-T, the other one, equally reasonable."""


def person(name, chosen=FIRST, **about):
    return Person.model_validate_json(json.dumps(synthetic_answers(name, chosen, **about)))


def shares_of(table, dataset="all"):
    rows = table[table["dataset"] == dataset]
    return {against: tuple(group["share"]) for against, group in rows.groupby("against")}


def test_two_scripted_participants_give_exactly_the_counted_percentages():
    table = preferences([person("1"), person("2", SECOND)], PUBLISHED, 99, 0)
    assert shares_of(table) == shares_of(table, "birds") == SHARES
    assert set(table["n_persons"]) == {2}
    assert set(table["n_answers"]) == {8}
    assert table[["low", "high"]].isna().all(axis=None), "two persons have no interval"


def test_shares_of_several_datasets_are_kept_apart_and_added_up():
    both = {against: [*FIRST[against], *SECOND[against]] for against in FIRST}
    table = preferences([person("1", both, datasets=("birds", "dogs"))], PUBLISHED, 99, 0)
    assert shares_of(table) == SHARES
    assert shares_of(table, "birds")["l2x_f"] == (0.5, 0.25, 0.25)
    assert shares_of(table, "dogs")["l2x_f"] == (0, 1, 0)


def test_the_published_shares_stand_beside_ours():
    table = preferences([person("1")], PUBLISHED, 99, 0)
    published = table[table["dataset"] == "all"].groupby("against", sort=False)["published"].apply(tuple).to_dict()
    assert published == {"grad_cam": (0.71, 0.14, 0.14), "l2x_f": (0.53, 0.22, 0.24), "other_image": (0.79, 0.06, 0.13)}
    assert table.loc[table["dataset"] == "birds", "published"].isna().all()


def test_the_test_has_one_value_per_person_and_agrees_with_scipy():
    """Differences of 10 persons for Grad-CAM, in quarters: scipy's exact distribution needs no ties, so ranks by hand."""
    wins = [4, 4, 4, 3, 3, 2, 4, 3, 1, 4]
    people = [person(str(i), FIRST | {"grad_cam": [B] * w + [O] * (4 - w)}) for i, w in enumerate(wins)]
    tests = preference_tests(people, 999, 0)
    row = tests[(tests["dataset"] == "all") & (tests["against"] == "grad_cam")].iloc[0]
    differences = np.array([(2 * w - 4) / 4 for w in wins])
    assert row["difference"] == pytest.approx(differences.mean())
    nonzero = differences[differences != 0]
    ranks = stats.rankdata(abs(nonzero))
    patterns = [sum(r for r, sign in zip(ranks, signs, strict=True) if sign) for signs in product((0, 1), repeat=len(ranks))]  # fmt: skip
    extreme = min(ranks[nonzero > 0].sum(), ranks[nonzero < 0].sum())
    assert row["p"] == pytest.approx(2 * np.mean(np.array(patterns) <= extreme))
    assert (row["n_persons"], row["n_answers"]) == (10, 40)
    assert row["low"] < row["difference"] < row["high"]


def test_many_answers_of_few_persons_are_no_evidence():
    """Five persons who always prefer BLA-T give 20 answers; a binomial test of 20 answers would have p = 0.000002."""
    always = dict.fromkeys(FIRST, [B] * 4)
    tests = preference_tests([person(str(i), always) for i in range(5)], 99, 0)
    assert tests["p"].min() == 2 / 2**5
    assert tests["low"].isna().all()


def test_holm_corrects_the_three_comparisons_together_and_single_datasets_apart():
    always = {"grad_cam": [B] * 8, "l2x_f": [B] * 8, "other_image": [E] * 8}
    tests = preference_tests([person(str(i), always, datasets=("birds", "dogs")) for i in range(8)], 99, 0)
    p = tests.set_index(["dataset", "against"])["p_holm"]
    assert p["all", "grad_cam"] == 3 * 2 / 2**8
    assert p["birds", "grad_cam"] == p["dogs", "l2x_f"] == 6 * 2 / 2**8
    assert p["all", "other_image"] == 1


def test_under_no_preference_the_test_is_rarely_significant():
    """300 studies of 20 persons with tastes of their own, but none on average: about 5 % have p < 0.05."""
    rng, significant = np.random.default_rng(0), 0
    base = [person(str(i)) for i in range(20)]
    table = comparisons(base)
    asked = table[table["against"] == "grad_cam"]
    from bla.experiments.explanations.user_study.tables import _tested

    for study in range(300):
        taste = rng.beta(0.7, 0.7, 20)[asked["person"]]
        score = np.where(rng.random(len(asked)) < taste, 1.0, -1.0)
        significant += _tested(asked, score, 9, study)["p"] < 0.05
    assert significant / 300 < 0.09


def test_predictions_are_compared_with_the_guess_level():
    table = prediction_tests([person(str(i), right=2) for i in range(8)], 99, 0).set_index(["dataset", "method"])
    assert table.loc[("all", "bla_t"), "share_right"] == 1
    assert table.loc[("all", "other_image"), "share_right"] == 0
    assert set(table["guess_level"]) == {0.5}
    assert table.loc[("all", "bla_t"), "difference"] == 0.5
    assert table.loc[("all", "bla_t"), "p"] == 2 / 2**8


LEFT = [B, O, B, O]
"""Always the left side: BLA-T's side alternates."""


@pytest.mark.parametrize(
    ("about", "reason"),
    [
        ({}, ""),
        ({"comprehension": {"choice": "house", "seconds": 5}}, "comprehension item: house instead of sun"),
        ({"seconds": 1.9}, "median time of a comparison 1.9 s, below 2.0 s"),
        ({"seconds": 2.0}, ""),
        ({"chosen": dict.fromkeys(FIRST, [E] * 4)}, ""),
        ({"chosen": dict.fromkeys(FIRST, [B] * 4)}, ""),
    ],
)
def test_exclusions_follow_the_fixed_rule(about, reason):
    assert exclusions([person("1", **about)]) == [reason]


def test_the_same_side_in_every_comparison_excludes():
    answers = synthetic_answers("1", dict.fromkeys(FIRST, LEFT))
    answers["repeated"]["choice"] = "left"
    one = Person.model_validate_json(json.dumps(answers))
    assert exclusions([one]) == ["every comparison answered left"]


def test_a_second_file_of_a_person_is_excluded_and_everyone_is_listed():
    people = [person("1"), person("1", SECOND), person("2", seconds=0.5)]
    reasons = exclusions(people)
    assert reasons == ["", "in an earlier file", "median time of a comparison 0.5 s, below 2.0 s"]
    table = excluded_table(people, reasons)
    assert table["excluded"].tolist() == ["no", "yes", "yes"]
    assert table["participant"].tolist() == [p.participant for p in people]


def test_an_opposite_answer_to_the_repeated_question_is_reported_and_excludes_nobody():
    answers = synthetic_answers("2", FIRST)
    answers["repeated"]["choice"] = answers["comparisons"][0]["choice"]  # the same side is now the other explanation
    people = [person("1"), Person.model_validate_json(json.dumps(answers))]
    assert exclusions(people) == ["", ""]
    counts = demographics(people).set_index(["question", "answer"])["persons"]
    assert counts["repeated", "the same"] == counts["repeated", "the opposite"] == 1


def test_demographics_count_persons():
    people = [person("1", age=18), person("2", age=22), person("3", age=99), person("4", age=None, gender="not said")]
    counts = demographics(people).set_index(["question", "answer"])["persons"]
    assert counts["age", "15–19"] == counts["age", "20–24"] == counts["age", "95–99"] == counts["age", "not said"] == 1
    assert counts["age"].sum() == counts["gender"].sum() == counts["ml"].sum() == counts["xai"].sum() == 4
    assert counts["gender", "not said"] == 1
    assert counts["page"].sum() == 4


REMOVED = object()


def changed(answers, path, value):
    """The file with another value at a path such as comparisons.0.choice."""
    *parents, last = path.split(".")
    place = answers
    for name in parents:
        place = place[int(name) if name.isdigit() else name]
    if value is REMOVED:
        del place[int(last) if last.isdigit() else last]
    else:
        place[int(last) if last.isdigit() else last] = value
    return answers


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("age", REMOVED, "age: field required"),
        ("age", 17, "age: input should be greater than or equal to 18"),
        ("age", "34", "age: input should be a valid integer"),
        ("name", "Ada", "name: extra inputs are not permitted"),
        ("gender", "<b>", "gender: input should be 'male', 'female', 'other' or 'not said'"),
        ("consent", False, "consent: input should be True"),
        ("page", "AB" * 32, "page: string should match"),
        ("comparisons.0.choice", "middle", "comparisons.0.choice: input should be"),
        ("comparisons.0.seconds", -1, "comparisons.0.seconds: input should be greater than or equal to 0"),
        ("comparisons.0.remark", "hello", "comparisons.0.remark: extra inputs"),
        ("comparisons.0", REMOVED, "comparisons: birds against grad_cam: 3 answers instead of 4"),
        ("comparisons.0.dataset", "cats", "comparisons: birds against grad_cam: 3 answers instead of 4"),
        ("predictions.3", REMOVED, "predictions: birds, other_image: 0 answers instead of 1"),
        ("predictions.0.choice", 5, "predictions.0.choice: must be one of the options"),
        ("predictions.0.options", [7, 7], "predictions.0.options: a class is listed twice"),
        ("repeated.image", 77, "repeated: must repeat one of the comparisons, with the sides swapped"),
        ("datasets", [], "datasets: list should have at least 1 item"),
        ("format", 2, "format: input should be 1"),
    ],
)
def test_a_wrong_file_gives_one_message_with_file_key_and_remedy(tmp_path, path, value, words):
    file = tmp_path / "x.json"
    file.write_text(json.dumps(changed(synthetic_answers("1", FIRST), path, value)))
    with pytest.raises(BlaError) as error:
        read_answers(file)
    message = str(error.value)
    assert message.startswith(f"{file}: {words}")
    assert message.endswith("move it out of the folder")
    assert "\n" not in message


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"format": NaN}', "\xff", "{" * 5000, '{"age": 1e999}'])
def test_a_file_that_is_no_file_of_answers_gives_one_message(tmp_path, text):
    file = tmp_path / "x.json"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(BlaError, match=r"x\.json: .*move it out of the folder"):
        read_answers(file)


def test_a_huge_file_is_not_read(tmp_path):
    file = tmp_path / "x.json"
    file.write_text(" " * 1_000_001)
    with pytest.raises(BlaError, match="larger than 1,000,000 bytes"):
        read_answers(file)


def test_times_must_be_finite(tmp_path):
    file = tmp_path / "x.json"
    text = json.dumps(synthetic_answers("1", FIRST)).replace('"seconds": 8.0', '"seconds": NaN', 1)
    file.write_text(text)
    with pytest.raises(BlaError, match="seconds: input should be a finite number"):
        read_answers(file)


def test_without_answers_tables_are_empty_and_figures_say_so():
    shares, who = preferences([], PUBLISHED, 99, 0), demographics([])
    assert preference_tests([], 99, 0).empty
    assert prediction_tests([], 99, 0).empty
    assert shares.empty
    assert who.empty
    for figure in (figure_four(shares), figure_seven(shares), *(participants(who, name) for name in PEOPLE)):
        (text,) = figure.texts
        assert "no answers yet" in text.get_text()


def test_figures_show_the_shares_of_every_dataset_and_the_paper():
    both = {against: [*FIRST[against], *SECOND[against]] for against in FIRST}
    people = [person(str(i), both, datasets=("birds", "dogs")) for i in range(7)]
    shares = preferences(people, PUBLISHED, 99, 0)
    four, seven = figure_four(shares), figure_seven(shares)
    assert [len(axis.patches) for axis in four.axes] == [6, 6, 6]
    assert [patch.get_height() for patch in four.axes[0].patches] == pytest.approx([0.5, 0.25, 0.25, 0.71, 0.14, 0.14])
    assert len(seven.axes) == 9
    assert [patch.get_height() for patch in seven.axes[5].patches] == [0, 1, 0]
    assert [patch.get_height() for patch in participants(demographics(people), "figure8").axes[0].patches] == [
        0,
        7,
        0,
        0,
    ]


def test_every_claim_about_people_has_a_comparison():
    assert set(protocol.CLAIMED.values()) == set(protocol.OTHERS)
