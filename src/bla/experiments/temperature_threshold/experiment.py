"""Sensitivity: what temperature, threshold and its rule do to BLA-T, which the paper tries at one value each.

    variants = grid([0.1, 1], [0, 0.98], ["subtract"])
    tables = measure(train_features, train_labels, features, labels, coverage, variants, head, seeds, schedule)
    summary(runs)                # a row a setting, with how many runs died

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
from bla.experiments.runs import PAIRED, means, paired
from bla.inference.paired import holm
from bla.method.modules import Evaluation, Head
from bla.method.training import evaluate, train_sweep
from bla.metrics.localisation import overlap

NEARLY_ALL = 0.99
"""Share of test images that must be dead in a run that counts as dead."""
SETTING = ["threshold_rule", "temperature", "threshold_factor"]
MEASURES = ["accuracy", "loss", "explanation_size", "iou", "precision", "recall"]


def grid(
    temperatures: Iterable[float], factors: Iterable[float], rules: Iterable[ThresholdRule]
) -> list[BoundedLogits]:
    """BLA-T with every combination of the three; the head trains along."""
    return [BoundedLogits("bounded_logits", "trained", t, f, r) for r, t, f in product(rules, temperatures, factors)]


def measure(
    train_features: Tensor,
    train_labels: Tensor,
    features: Tensor,
    labels: Tensor,
    coverage: NDArray[np.float64] | None,
    variants: Sequence[BoundedLogits],
    head: Head,
    seeds: Sequence[int],
    schedule: Schedule,
) -> list[pd.DataFrame]:
    """Train a run of each variant for each seed from its head, and evaluate it with hard explanations: a row a run.

    There is a table for each variant. The variants train together, on the same images with the same dropout. `train_features` `[D, N, n, C]`, `features` `[M, n, C]` and `coverage` `[M, n]`, the share of each cell that the object
    covers, or None without masks. `died` says how learning died: "cut" where no cell has weight, "bound" where all cells
    are at the bound, else "".
    """
    sweep = train_sweep(train_features, train_labels, variants, head, seeds, schedule, schedule.epochs)
    results = [evaluate(features, labels, v, own, seeds) for v, own in zip(variants, sweep, strict=True)]
    return [_rows(v, result, coverage) for v, result in zip(variants, results, strict=True)]


def _rows(variant: BoundedLogits, result: Evaluation, coverage: NDArray[np.float64] | None) -> pd.DataFrame:
    runs, images = result.loss.shape
    explained = result.explained
    assert explained is not None
    hard = explained.hard.numpy()
    at_bound = (explained.logits == 0).all(dim=2).numpy().mean(axis=1)
    without_weight = (explained.soft.sum(dim=2) == 0).numpy().mean(axis=1)
    rows = pd.DataFrame({"threshold_rule": variant.threshold_rule, "temperature": variant.temperature}, range(runs))
    rows["threshold_factor"], rows["run"], rows["n_images"] = float(variant.threshold_factor), rows.index, images
    rows["accuracy"] = result.correct.double().mean(dim=1).numpy()
    rows["loss"] = result.loss.double().mean(dim=1).numpy()
    rows["explanation_size"] = hard.sum(axis=2).mean(axis=1)
    inside = np.full((3, runs), np.nan)
    if coverage is not None:
        inside = np.nanmean(overlap(hard.transpose(1, 0, 2), coverage), axis=1)  # [3, M, R] over images
    rows["iou"], rows["precision"], rows["recall"] = inside
    rows["share_at_bound"], rows["share_without_weight"] = at_bound, without_weight
    rows["died"] = np.where(without_weight >= NEARLY_ALL, "cut", np.where(at_bound >= NEARLY_ALL, "bound", ""))
    return rows


def summary(runs: pd.DataFrame) -> pd.DataFrame:
    """Each setting's mean over runs and standard error, and how many runs died at the bound or cut: a row a setting."""
    keys = ["dataset", *SETTING]
    table = means(runs, keys, MEASURES)
    for how in ("bound", "cut"):
        table[f"died_{how}"] = (
            (runs["died"] == how).groupby([runs[key] for key in keys], sort=False).sum().to_numpy(int)
        )
    return table


def differences(runs: pd.DataFrame, reference: BoundedLogits, resamples: int, seed: int) -> pd.DataFrame:
    """Every setting against the reference, paired by run, with Holm's p over the table; empty if it is not in the grid."""
    rows = []
    wanted = [getattr(reference, name) for name in SETTING]
    for dataset, own in runs.groupby("dataset", sort=False):
        by_setting = {keys: part.sort_values("run") for keys, part in own.groupby(SETTING, sort=False)}
        if (base := by_setting.pop(tuple(wanted), None)) is None:
            continue
        for keys, part in by_setting.items():
            for name in ("accuracy", "loss", "explanation_size", "iou"):
                x, y = part[name].to_numpy(float), base[name].to_numpy(float)
                if np.isnan(x - y).any():
                    continue
                row: dict[str, object] = {"dataset": dataset} | dict(zip(SETTING, keys, strict=True))
                rows.append(row | {"measure": name} | paired(x, y, resamples, seed))
    table = pd.DataFrame(rows, columns=["dataset", *SETTING, "measure", *PAIRED])
    table["p_holm"] = holm(table["p"].to_numpy(float))
    return table
