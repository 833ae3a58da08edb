"""What temperature, threshold and its rule do to BLA-T, which the paper tries at one value each.

    variants = grid([0.1, 1], [0, 0.98], ["subtract"])
    tables = measure(train, test, coverage, variants, head, seeds, schedule)       # a table a variant, a row a run

Learning can die in two ways. Where all cells of an image are at the bound, l = 0 everywhere, the module gets no gradient
from it; where the threshold cuts every weight, nothing of the image reaches the head. A run in which either holds for
nearly all images has no explanation to show, and is counted.
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
"""Share of test images that must be dead in a run that counts as dead."""
SETTING = ["threshold_rule", "temperature", "threshold_factor"]
MEASURES = ["accuracy", "loss", "explanation_size", "iou", "precision", "recall"]
RUN = ["dataset", *SETTING, "run", "n_images", *MEASURES, "share_at_bound", "share_without_weight", "died"]


def grid(
    temperatures: Iterable[float], factors: Iterable[float], rules: Iterable[ThresholdRule]
) -> list[BoundedLogits]:
    """BLA-T with every combination of the three; the head trains along."""
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
    """Train a run of each variant for each seed from its head, and evaluate it with hard explanations: a row a run.

    There is a table for each variant. The variants train together, on the same images with the same dropout. `train` is
    features `[D, N, n, C]` and labels `[N]`, `test` `[M, n, C]` and `[M]`; `coverage` `[M, n]` is the share of each cell that
    the object covers, or None without masks. `died` says how learning died: "cut" where no cell has weight, "bound" where
    all cells are at the bound, else "".
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
