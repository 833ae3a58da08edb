"""How temperature, threshold and threshold rule affect BLA-T; the paper tries one value of each.

    variants = grid([0.1, 1], [0, 0.98], ["subtract"])
    tables = measure(train, test, coverage, variants, head, seeds, schedule)       # a table per variant, a row per run

Learning can die in two ways. If all cells of an image are at the bound (l = 0), the module gets no gradient from the
image. If the threshold cuts all weights, the head gets no features of the image. A run in which one of them happens to
nearly all images has no explanation to show, and counts as dead.
"""

from collections.abc import Iterable, Sequence
from itertools import product

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor

from bla.base.specs import BoundedLogits, Schedule, ThresholdRule
from bla.experiments.runs import table_of_runs
from bla.method.evaluation import evaluate
from bla.method.modules import Evaluation, Head
from bla.method.training import train_sweep
from bla.metrics.localisation import overlap

NEARLY_ALL = 0.99
"""A run counts as dead if at least this share of its test images is at the bound, or is cut."""
SETTING = ["threshold_rule", "temperature", "threshold_factor"]
MEASURES = ["accuracy", "loss", "explanation_size", "iou", "precision", "recall"]
RUN = ["dataset", *SETTING, "run", "n_images", *MEASURES, "share_at_bound", "share_without_weight", "died"]


def grid(
    temperatures: Iterable[float], factors: Iterable[float], rules: Iterable[ThresholdRule]
) -> list[BoundedLogits]:
    """BLA-T with every combination of temperature, threshold factor and threshold rule; the head trains too."""
    return [
        BoundedLogits(explanation="bounded_logits", head="trained", temperature=t, threshold_factor=f, threshold_rule=r)
        for r, t, f in product(rules, temperatures, factors)
    ]


def measure(
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    coverage: NDArray[np.float64] | None,
    variants: Sequence[BoundedLogits],
    head: Head,
    seeds: Sequence[int],
    schedule: Schedule,
) -> list[pd.DataFrame]:
    """Train run r of every variant from head r, and evaluate it: a table per variant, a row per run.

    The variants train together, on the same images with the same dropout. `train` is features `[D, N, n, C]` and labels
    `[N]`, `test` `[M, n, C]` and `[M]`; `coverage` `[M, n]` is the share of each cell that the object covers, None
    without masks. Results are with hard explanations. `died` is "cut" if no cell has weight, "bound" if all cells are
    at the bound (in nearly all images), else "".
    """
    sweep = train_sweep(*train, variants, head, seeds, schedule, schedule.epochs)
    results = [evaluate(*test, variant, trained, seeds) for variant, trained in zip(variants, sweep, strict=True)]
    return [_rows(variant, result, coverage) for variant, result in zip(variants, results, strict=True)]


def _rows(variant: BoundedLogits, result: Evaluation, coverage: NDArray[np.float64] | None) -> pd.DataFrame:
    rows, explained = table_of_runs(result), result.explained
    assert explained is not None
    inside = np.full((3, len(rows)), np.nan)
    if coverage is not None:
        inside = np.nanmean(overlap(explained.hard.numpy().transpose(1, 0, 2), coverage), axis=1)  # [3, R], over images
    rows["iou"], rows["precision"], rows["recall"] = inside
    cut, bound = (rows[name] >= NEARLY_ALL for name in ("share_without_weight", "share_at_bound"))
    rows["died"] = np.where(cut, "cut", np.where(bound, "bound", ""))
    return rows.assign(
        threshold_rule=variant.threshold_rule,
        temperature=variant.temperature,
        threshold_factor=float(variant.threshold_factor),
    )
