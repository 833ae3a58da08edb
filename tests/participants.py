"""Synthetic participants for tests: files of answers with chosen counts. No person gave these answers."""

import hashlib

from bla.experiments.explanations.user_study.protocol import METHODS, OTHERS, QUESTIONS

DEPARTURES = ["2 runs (paper: 20)"]


def synthetic_answers(name, chosen, datasets=("birds",), kinds=None, right=1, seconds=8.0, **changed):
    """A file of answers, as read from JSON.

    `chosen` are the answers (bla_t, other or equal) of each comparison by what BLA-T is compared with, for the questions
    of one dataset after the other. BLA-T's side alternates. `right` of the predictions of each dataset are right, of two
    options; the repeated question gets the same answer.
    """
    comparisons, predictions = [], []
    for against in OTHERS:
        answers = iter(chosen[against])
        for dataset in datasets:
            for question in range(QUESTIONS):
                comparisons.append(
                    _comparison(dataset, len(comparisons), against, question % 2, next(answers), seconds)
                )
        assert next(answers, None) is None
    for dataset in datasets:
        for number, method in enumerate(METHODS):
            about = {"dataset": dataset, "image": 500 + number, "method": method, "options": [3, 7], "decided": 7}
            predictions.append(about | {"choice": 7 if number < right else 3, "seconds": seconds})
    first = comparisons[0]
    side = {"left": "right", "right": "left", "equal": "equal"}
    repeated = first | {"bla_t": side[first["bla_t"]], "choice": side[first["choice"]]}
    return {
        "format": 1,
        "page": "ab" * 32,
        "participant": hashlib.md5(name.encode()).hexdigest(),
        "seed": 5,
        "consent": True,
        "age": 34,
        "gender": "female",
        "ml": "agree",
        "xai": "undecided",
        "comprehension": {"choice": "sun", "seconds": seconds},
        "datasets": [
            {"name": d, "kind": (kinds or {}).get(d, "painted_birds"), "departures": [] if kinds else DEPARTURES}
            for d in datasets
        ],
        "comparisons": comparisons,
        "repeated": repeated,
        "predictions": predictions,
    } | changed


def _comparison(dataset, image, against, on_the_right, answer, seconds):
    side = ("left", "right")[on_the_right]
    choice = {"bla_t": side, "other": ("right", "left")[on_the_right], "equal": "equal"}[answer]
    return {"dataset": dataset, "image": image, "against": against, "bla_t": side, "choice": choice, "seconds": seconds}
