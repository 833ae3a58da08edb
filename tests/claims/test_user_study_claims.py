"""Claims 18 to 20: what people prefer, on synthetic tests of preferences."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from bla.claims.judge import judge_claims
from bla.inference.clustered import cluster_bootstrap


def _preferences(
    difference=0.5, p=0.001, low=0.3, high=0.7, persons=62, kind="paper", departures="", rank_biserial=0.8, **rows
):
    """The test of each comparison over all datasets, and of single datasets named in `rows` with their kind."""
    about = {"n_persons": persons, "n_answers": 12 * persons, "difference": difference, "low": low, "high": high}
    about |= {"rank_biserial": rank_biserial, "p": p, "departures": departures}
    return pd.DataFrame(
        [
            {"dataset": dataset, "kind": of, "against": against, "title": against} | about
            for dataset, of in {"all": kind, **rows}.items()
            for against in ("grad_cam", "l2x_f", "other_image")
        ]
    )


@pytest.fixture
def judged(evidence):
    """`judged(table)`: the rows of claims 18 to 20."""

    def judge(table):
        claims = judge_claims(evidence(user_study=table))
        return claims[claims["claim"].between(18, 20)].reset_index(drop=True)

    return judge


def test_without_answers_each_claim_says_so_beside_the_published_shares(judged):
    claims = judged(pd.DataFrame(columns=["against"]))
    assert claims["claim"].tolist() == [18, 19, 20]
    assert set(claims["verdict"]) == {"not run"}
    assert set(claims["holds_here"]) == {""}
    assert set(claims["reason"]) == {"no answers yet: see docs/user_study.md"}
    assert claims["paper"].tolist()[0] == "BLA-T 0.71, CAM 0.14, equal 0.14"
    assert claims["paper"].tolist()[2] == "BLA-T 0.79, random 0.06, equal 0.13"


@pytest.mark.parametrize(
    ("about", "answer", "verdict"),
    [
        ({}, "yes", "reproduced"),
        ({"difference": -0.5, "low": -0.7, "high": -0.3, "rank_biserial": -0.8}, "no", "not reproduced"),
        ({"p": 0.06}, "inconclusive", "inconclusive"),
        ({"low": -0.01}, "inconclusive", "inconclusive"),
    ],
)
def test_on_the_papers_datasets_each_claim_gets_a_verdict(judged, about, answer, verdict):
    claims = judged(_preferences(**about))
    assert claims["holds_here"].tolist() == [answer] * 3
    assert claims["verdict"].tolist() == [verdict] * 3


@pytest.mark.parametrize(
    ("about", "reason"),
    [
        ({"kind": ""}, "not the paper's three datasets"),
        ({"kind": np.nan}, "not the paper's three datasets"),
        ({"persons": 61}, "not the paper's settings: 61 persons (paper: 62)"),
        ({"departures": "2 runs (paper: 20)"}, "not the paper's settings: 2 runs (paper: 20)"),
    ],
)
def test_other_studies_get_an_answer_but_no_verdict(judged, about, reason):
    claims = judged(_preferences(**about))
    assert set(claims["holds_here"]) == {"yes"}
    assert set(claims["verdict"]) == {"not run"}
    assert set(claims["reason"]) == {reason}


def test_five_persons_cannot_answer(judged):
    claims = judged(_preferences(persons=5, p=0.01, low=np.nan, high=np.nan))
    assert set(claims["holds_here"]) == {"inconclusive"}
    assert claims["test"].str.contains("the sample allows no p below").all()


def test_single_datasets_get_an_answer_but_no_verdict(judged):
    claims = judged(_preferences(birds="caltech_birds", painted="painted_birds"))
    assert claims["dataset"].tolist() == ["", "birds", "painted"] * 3
    assert claims.loc[1:2, "reason"].tolist() == [
        "the paper's percentages are for all its datasets together",
        "not one of the paper's datasets",
    ]
    assert claims.loc[1:2, "paper"].tolist() == ["", ""]
    assert claims.loc[:2, "verdict"].tolist() == ["reproduced", "not run", "not run"]


@pytest.mark.parametrize(
    ("shares", "ranks"),
    [([-0.1] * 50 + [1.0] * 12, -1), ([0.1] * 50 + [-1.0] * 12, 1), ([-0.05] * 47 + [0.8] * 11 + [0.0] * 4, -1)],
    ids=["a few strongly for BLA-T", "a few strongly against it", "some undecided"],
)
def test_a_few_strong_preferences_do_not_outvote_most_persons(judged, shares, ranks):
    """The mean and its interval are on one side, the signed ranks significantly on the other."""
    shares = np.array(shares)
    (interval,) = cluster_bootstrap(12 * shares[:, None], np.full(62, 12), 9999, seed=0)
    p = stats.wilcoxon(shares).pvalue
    assert p < 0.05
    assert min(-ranks * interval.low, -ranks * interval.high) > 0
    claims = judged(_preferences(shares.mean(), p, *interval, rank_biserial=0.3 * ranks))
    assert set(claims["holds_here"]) == {"inconclusive"}
