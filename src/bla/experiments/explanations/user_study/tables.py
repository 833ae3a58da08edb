"""Preferences, predicted classes, demographics and exclusions, as tables; the tests are over persons, not answers.

A person's answers depend on each other, so each test has one value per person: in comparisons the share of answers for
BLA-T minus the share for the other explanation, in the prediction of the class the share of right answers minus the
guess level. Families for Holm: the comparisons over all datasets, those on single datasets, and the same for predictions.
"""

from collections.abc import Sequence
from statistics import median

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bla.base.paper import DATASETS
from bla.experiments.explanations.user_study.answers import Person, comparisons, predictions
from bla.experiments.explanations.user_study.protocol import (
    AGREEMENT,
    FASTEST,
    GENDERS,
    METHODS,
    OTHERS,
    TITLES,
    UNDERSTOOD,
)
from bla.experiments.runs import corrected
from bla.inference.clustered import cluster_bootstrap
from bla.inference.paired import smallest_p, wilcoxon

ALL = "all"
"""In the column `dataset`: all datasets together, as in the paper's Figure 4."""
ANSWERS = ("bla_t", "other", "equal")
PREFERENCES = ["dataset", "against", "title", "answer", "n_persons", "n_answers", "share", "low", "high", "published"]
_TESTED = ["n_persons", "n_answers", "difference", "low", "high", "rank_biserial", "p", "p_holm", "p_holm_smallest"]
TESTS = ["dataset", "kind", "departures", "against", "title", *_TESTED]
PREDICTED = ["dataset", "method", "title", "share_right", "guess_level", *_TESTED]
DEMOGRAPHICS = ["question", "answer", "persons"]
EXCLUDED = ["participant", "excluded", "reason"]


def exclusions(people: Sequence[Person]) -> list[str]:
    """The reason to exclude each person, by the rule in `protocol`; empty for those who stay."""
    reasons, seen = [], set[str]()
    for person in people:
        asked = [*person.comparisons, person.repeated]
        sides, seconds = {answer.choice for answer in asked}, median(answer.seconds for answer in asked)
        reasons.append(
            "; ".join(
                reason
                for reason, applies in {
                    "in an earlier file": person.participant in seen,
                    f"comprehension item: {person.comprehension.choice} instead of {UNDERSTOOD}": person.comprehension.choice != UNDERSTOOD,
                    f"median time of a comparison {seconds:.1f} s, below {FASTEST:.1f} s": seconds < FASTEST,
                    f"every comparison answered {asked[0].choice}": len(sides) == 1 and sides != {"equal"},
                }.items()
                if applies
            )
        )  # fmt: skip
        seen.add(person.participant)
    return reasons


def excluded_table(people: Sequence[Person], reasons: Sequence[str]) -> pd.DataFrame:
    """Every participant, by the random number in the file, whether excluded (yes or no), and why."""
    rows = [(p.participant, "yes" if reason else "no", reason) for p, reason in zip(people, reasons, strict=True)]
    return pd.DataFrame(rows, columns=EXCLUDED)


def preferences(people: Sequence[Person], published: pd.DataFrame, resamples: int, seed: int) -> pd.DataFrame:
    """Figures 4 and 7: the share of each answer, with a 95 % interval over persons and the paper's share.

    A row per dataset (`all` first), comparison and answer; `published` is data/published_values.csv.
    """
    paper = published[published["where"] == "Figure 4"].set_index("method")["value"]
    rows = []
    for (dataset, against), answers in _groups(comparisons(people), "against", OTHERS):
        chosen = np.stack([answers["preferred"] == answer for answer in ANSWERS], axis=1)
        sums, counts = _by_person(answers, chosen)
        intervals = cluster_bootstrap(sums, counts, resamples, seed)
        for answer, share, interval in zip(ANSWERS, sums.sum(axis=0) / counts.sum(), intervals, strict=True):
            value = paper[_published_name(against, answer)] if dataset == ALL else np.nan
            about = dataset, against, TITLES[against], answer, len(counts), int(counts.sum())
            rows.append((*about, share, *interval, value))
    return pd.DataFrame(rows, columns=PREFERENCES)


def preference_tests(people: Sequence[Person], resamples: int, seed: int) -> pd.DataFrame:
    """Whether BLA-T is preferred: each person's share for BLA-T minus the share for the other, against 0.

    `difference` is the mean over all answers, `low` and `high` its 95 % interval over persons. `kind` is the kind of a
    dataset's images, for `all` "paper" if the datasets are the paper's three; `departures` how the explained networks
    differ from the paper's, in words.
    """
    rows = []
    for (dataset, against), answers in _groups(comparisons(people), "against", OTHERS):
        chosen = answers["preferred"]
        score = np.asarray(chosen == "bla_t", np.float64) - np.asarray(chosen == "other", np.float64)
        about = {"dataset": dataset, "against": against, "title": TITLES[against]} | _settings_of(people, dataset)
        rows.append(about | _tested(answers, score, resamples, seed))
    return _corrected(rows, TESTS)


def prediction_tests(people: Sequence[Person], resamples: int, seed: int) -> pd.DataFrame:
    """Whether people predict the decided class from an explanation alone more often than by guessing.

    A row per dataset (`all` first) and method: the share of right answers, the guess level, and the difference.
    """
    rows = []
    for (dataset, method), answers in _groups(predictions(people), "method", METHODS):
        about: dict[str, object] = {"dataset": dataset, "method": method, "title": TITLES[method]}
        about |= {"share_right": answers["right"].mean(), "guess_level": answers["guess"].mean()}
        rows.append(
            about | _tested(answers, np.asarray(answers["right"] - answers["guess"], np.float64), resamples, seed)
        )
    return _corrected(rows, PREDICTED)


def demographics(people: Sequence[Person]) -> pd.DataFrame:
    """Figures 8 to 11: how many persons gave each answer; ages in steps of five years, as in the paper's figure.

    The last rows say how many gave the repeated question the same answer as before, and how many pages they used.
    """
    ages = [person.age for person in people]
    steps = range(min([18, *(a for a in ages if a)]) // 5 * 5, max([54, *(a for a in ages if a)]) + 1, 5)
    counts = [("gender", answer, sum(p.gender == answer for p in people)) for answer in GENDERS]
    counts += [("age", f"{low}–{low + 4}", sum(a is not None and low <= a < low + 5 for a in ages)) for low in steps]
    counts += [("age", "not said", sum(a is None for a in ages))]
    counts += [("ml", answer, sum(p.ml == answer for p in people)) for answer in AGREEMENT]
    counts += [("xai", answer, sum(p.xai == answer for p in people)) for answer in AGREEMENT]
    counts += [("repeated", answer, count) for answer, count in _repeated(people).items()]
    counts += [("page", page[:16], sum(p.page == page for p in people)) for page in sorted({p.page for p in people})]
    return pd.DataFrame(counts if people else [], columns=DEMOGRAPHICS)


def _repeated(people: Sequence[Person]) -> dict[str, int]:
    """How many persons gave the repeated question the same answer, another one with `equal`, and the opposite one."""
    pairs = [(first.preferred, p.repeated.preferred) for p in people if (first := p.first_answer())]
    same = sum(first == again for first, again in pairs)
    opposite = sum({first, again} == {"bla_t", "other"} for first, again in pairs)
    return {"the same": same, "one of them equal": len(pairs) - same - opposite, "the opposite": opposite}


def _groups(table: pd.DataFrame, column: str, values: Sequence[str] | dict[str, str]) -> list[tuple[tuple[str, str], pd.DataFrame]]:  # fmt: skip
    """The answers of each dataset, all together first, and each value of a column; none without answers."""
    if table.empty:
        return []
    datasets = list(dict.fromkeys(table["dataset"]))
    parts = {ALL: table} | {name: table[table["dataset"] == name] for name in datasets}
    return [((name, value), part[part[column] == value]) for name, part in parts.items() for value in values]


def _by_person(answers: pd.DataFrame, values: NDArray[np.generic]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Each person's sums `[P, K]` of values `[N, K]`, and numbers of answers `[P]`."""
    _, person = np.unique(answers["person"], return_inverse=True)
    sums = np.zeros((person.max() + 1, values.shape[1]))
    np.add.at(sums, person, values.astype(np.float64))
    return sums, np.bincount(person).astype(np.float64)


def _tested(answers: pd.DataFrame, score: NDArray[np.float64], resamples: int, seed: int) -> dict[str, object]:
    """The mean score with its interval over persons, and Wilcoxon's signed-rank test of the persons' means against 0."""
    sums, counts = _by_person(answers, score[:, None])
    means = (sums[:, 0] / counts).round(9)  # so that equal means are ties
    test, interval = wilcoxon(means, np.zeros(len(means))), cluster_bootstrap(sums, counts, resamples, seed)[0]
    values = (len(counts), len(score), score.mean(), *interval, test.effect_size, test.p, smallest_p(len(counts)))
    return dict(zip([*_TESTED[:7], "p_smallest"], values, strict=True))


def _corrected(rows: list[dict[str, object]], columns: list[str]) -> pd.DataFrame:
    """The tests with Holm's correction, `all` and the single datasets apart."""
    if not rows:
        return pd.DataFrame(columns=columns)
    table = pd.DataFrame(rows)
    return corrected(table.assign(together=table["dataset"] == ALL), ["together"])[columns]


def _settings_of(people: Sequence[Person], dataset: str) -> dict[str, str]:
    """The kind of images of a dataset and its departures from the paper's settings, in all pages that were used."""
    explained = [e for person in people for e in person.datasets if dataset in (ALL, e.name)]
    kinds = {e.kind for e in explained}
    departures = dict.fromkeys(text for e in explained for text in e.departures)
    kind = ("paper" if kinds == set(DATASETS) else "") if dataset == ALL else "; ".join(sorted(kinds))
    return {"kind": kind, "departures": "; ".join(departures)}


def _published_name(against: str, answer: str) -> str:
    """The name of a share of Figure 4 in data/published_values.csv."""
    other = OTHERS[against]
    return {"bla_t": f"BLA-T over {other}", "other": f"{other} over BLA-T", "equal": f"BLA-T equal to {other}"}[answer]
