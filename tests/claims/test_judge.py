"""Which cases get a verdict, and which verdict."""

import math

import pandas as pd
import pytest

from bla.base import paper
from bla.base.specs import Photographs
from bla.claims.judge import COLUMNS, judged
from bla.claims.register import Case
from bla.claims.rules import Finding

ANSWERS_ALONE = ["claim", "text", "dataset", "paper", "ours", "test", "p", "holds_here"]


def finding(holds_here="yes"):
    return Finding("ours", "test", 0.5, holds_here)


@pytest.mark.parametrize(
    ("case", "verdict", "reason"),
    [
        (Case("t", finding=finding()), "reproduced", ""),
        (Case("t", finding=finding("no")), "not reproduced", ""),
        (Case("t", finding=finding("inconclusive")), "inconclusive", ""),
        (Case("t", finding=finding(), remark="a remark"), "reproduced", "a remark"),
        (Case("t", obstacle="needs people"), "not run", "needs people"),
        (Case("t", finding=finding(), obstacle="not MNIST", remark="a remark"), "not run", "not MNIST"),
        (Case("t", finding=finding(), obstacle="not MNIST", departures=["k 3"]), "not run", "not MNIST"),
        (Case("t", finding=finding(), departures=["k 3", "x 4"], remark="a remark"), "not run", "k 3, x 4"),
    ],
    ids=range(8),
)
def test_a_verdict_needs_an_answer_and_no_obstacle_or_departure(case, verdict, reason):
    found = judged(case)
    assert found[0] == verdict
    assert found[1].endswith(reason)
    assert bool(found[1]) == bool(reason)


def test_answers_become_verdicts_on_the_papers_data(like_the_paper, judge):
    table = judge(like_the_paper)
    assert list(table) == COLUMNS
    tested = table[table["holds_here"] != ""]
    verdicts = {"yes": "reproduced", "no": "not reproduced", "inconclusive": "inconclusive"}
    assert (tested["verdict"] == tested["holds_here"].map(verdicts)).all()
    untested = table[table["holds_here"] == ""]
    assert set(untested["verdict"]) == {"not run"}
    assert untested["reason"].ne("").all()
    assert all(math.isnan(p) for p in untested["p"])


def test_the_papers_birds_at_the_papers_settings_get_verdicts(like_the_paper, judge):
    images, schedule = Photographs(kind="caltech_birds", **paper.IMAGES), paper.SCHEDULES["caltech_birds"]
    about = {
        "departures": paper.departures(images, paper.BACKBONE, schedule, paper.RUNS, paper.ALPHA),
        "variant_departures": paper.variant_departures(paper.VARIANTS),
    }
    table = judge(like_the_paper, **about)
    tested = table[table["holds_here"] != ""]
    assert (tested["verdict"] != "not run").all()
    assert (tested["reason"] == "").all()
    pd.testing.assert_frame_equal(table, judge(like_the_paper))


def test_departures_keep_answers_but_replace_verdicts_by_a_reason(like_the_paper, judge):
    departures = ["epochs 3 (paper: 5)", "19 runs (paper: 20)"]
    before, after = judge(like_the_paper), judge(like_the_paper, departures=departures)
    tested = after[(after["holds_here"] != "") & (after["dataset"] == "birds")]
    assert tested["reason"].str.endswith("epochs 3 (paper: 5), 19 runs (paper: 20)").all()
    assert set(tested["verdict"]) == {"not run"}
    pd.testing.assert_frame_equal(after[ANSWERS_ALONE], before[ANSWERS_ALONE])
