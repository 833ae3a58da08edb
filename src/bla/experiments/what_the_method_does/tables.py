"""A few questions about what the method does on a dataset, each answered by a test.

    rows = answers(questions(columns, cells=49, overlaps), alpha)

The questions and the rule were written before any of their numbers were seen, with a bootstrap interval; Student's t
replaced it later in all tables, because a bootstrap of few runs is too narrow, and the clause on means and ranks was
added after answers had been seen; no answer changed. Yes: Holm's corrected p is below alpha,
the interval over runs and images excludes 0, and the difference has the direction that the question asks about. No: the
same with the other direction. Otherwise the answer is inconclusive.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bla.experiments.runs import Column, Measure, corrected
from bla.inference.paired import crossed, smallest_p, standard_error, wilcoxon
from bla.metrics.localisation import overlap

Array = NDArray[np.float64]
RANDOM_SETS = 200
"""Random sets of cells per image and size."""
ANSWERS = ["question", "answer", "numbers", "test", "n_runs", "n_images", "difference", "low", "high"]
ANSWERS += ["rank_biserial", "p", "p_holm", "p_holm_smallest"]


@dataclass(frozen=True)
class Question:
    """Is `x` lower (`asks` = -1) or higher (1) than `y`? Both are `[R, N]`, of the same runs and images; None: not run."""

    text: str
    asks: int
    x: Array | None = None
    y: Array | None = None


def questions(columns: Mapping[str, Column], cells: int, overlaps: tuple[Array, Array] | None) -> list[Question]:
    """All questions for the columns of a dataset; `overlaps` are BLA's and random cells' IoU `[R, N]`, if there are masks."""
    bla = columns.get("bla")
    size = None if bla is None or bla.size is None else bla.size.astype(np.float64)
    half = None if size is None else np.full_like(size, cells / 2)
    asked = [Question(f"Does BLA keep fewer than half of the {cells} cells?", -1, size, half)]
    inside, random = overlaps or (None, None)
    asked.append(Question("Does BLA overlap the object more (IoU) than as many random cells?", 1, inside, random))
    pairs = (
        ("bla", "l2x_f", "Is BLA more accurate than L2X-F?", "Has BLA a lower loss than L2X-F?"),
        ("bla_t", "bla", "Is BLA more accurate with the threshold?", "Has BLA a lower loss with the threshold?"),
        (
            "bla_t_renormalise",
            "bla_t",
            "Is BLA-T more accurate if its weights are renormalised?",
            "Has BLA-T a lower loss if its weights are renormalised?",
        ),
    )
    measures: tuple[tuple[Measure, int], ...] = (("accuracy", 1), ("loss", -1))
    for x, y, *texts in pairs:
        for (measure, asks), text in zip(measures, texts, strict=True):
            both = (columns[key].per_image(measure) if key in columns else None for key in (x, y))
            asked.append(Question(text, asks, *both))
    return asked


def answers(asked: Sequence[Question], alpha: float) -> pd.DataFrame:
    """A row per question: answer, numbers (mean ± standard error over runs), test over runs, and interval over runs and images.

    Holm corrects the questions of a dataset as one family. A question without its columns or masks is not run. Where mean
    and ranks disagree, the answer is inconclusive. If `p_holm_smallest` is not below alpha, the runs are too few for any
    answer but inconclusive.
    """
    rows = []
    for question in asked:
        row: dict[str, object] = {"question": question.text, "answer": "not run"}
        if question.x is not None and question.y is not None:
            difference = question.x - question.y
            test = wilcoxon(difference.mean(axis=1).round(9), np.zeros(len(difference)))  # so that equal ones are ties
            (interval,) = crossed(difference[None])
            row |= {"numbers": " against ".join(_mean(values) for values in (question.x, question.y))}
            row |= {"test": "Wilcoxon signed-rank over runs, exact, two-sided", "n_runs": len(difference)}
            row |= {"n_images": difference.shape[1], "difference": difference.mean()}
            row |= {"low": interval.low, "high": interval.high, "rank_biserial": test.effect_size, "p": test.p}
            row["p_smallest"] = smallest_p(len(difference))
        rows.append(row)
    table = pd.DataFrame(rows, columns=[*ANSWERS[:-2], "p_smallest"])
    table, ran = corrected(table.assign(family="all"), ["family"])[ANSWERS], table["p"].notna()
    clear = (table["p_holm"] < alpha) & ((table["low"] > 0) | (table["high"] < 0))
    clear &= table["difference"].astype(float) * table["rank_biserial"].astype(float) > 0
    asks = np.array([question.asks for question in asked])
    yes = np.sign(table["difference"].to_numpy(float)) == asks
    table.loc[ran, "answer"] = np.where(clear, np.where(yes, "yes", "no"), "inconclusive")[ran]
    return table


def _mean(values: Array) -> str:
    of_runs = values.mean(axis=1)
    return f"{of_runs.mean():.3f} ± {float(standard_error(of_runs)):.3f}"


def overlaps_of(hard: NDArray[np.bool_], coverage: Array, seed: int) -> tuple[Array, Array]:
    """The IoU with the object of hard explanations `[R, N, n]`, and the mean one of as many random cells: `[R, N]` each.

    `coverage` `[N, n]` is the share of each cell that the object covers.
    """
    _, images, cells = hard.shape
    random = np.empty((images, cells + 1))
    rng = np.random.default_rng(seed)
    for row, covered in zip(random, coverage, strict=True):
        both = np.cumsum(rng.permuted(np.tile(covered, (RANDOM_SETS, 1)), axis=1), axis=1)  # of 1, 2, ... random cells
        row[:] = np.append(0, (both / (np.arange(1, cells + 1) + covered.sum() - both)).mean(axis=0))
    iou = np.stack([overlap(of_run, coverage)[0] for of_run in hard])
    return iou, random[np.arange(images), hard.sum(axis=2)]
