"""Section 4.1's comparison: the small CNN with and without bounded logits, both ways of pooling, all runs."""

from collections.abc import Callable, Iterator

import pandas as pd
import torch
from torch import Tensor

from bla.base.specs import BoundedLogits, Optimiser
from bla.experiments.runs import table_of_runs
from bla.method.modules import Evaluation
from bla.networks.small_cnn import Pooling, evaluate, train
from bla.runtime.threads import side_by_side

POOLINGS: tuple[Pooling, Pooling] = ("mean", "flat")
COLUMNS = ("bl", "bla_t")
Job = tuple[Pooling, str, list[int], int]
"""Pooling, column, the seeds of some runs, and the number of the first of these runs."""


def jobs(runs: int, seed_of: Callable[[str, str, int], int], device: torch.device) -> list[Job]:
    """Groups of runs of every pooling and column that train together: all on a GPU, one per thread on a CPU."""
    size = (
        1 if device.type == "cpu" else runs
    )  # small convolutions gain nothing from several threads or from batching runs
    return [
        (pooling, column, [seed_of(pooling, column, run) for run in range(start, min(start + size, runs))], start)
        for pooling in POOLINGS
        for column in COLUMNS
        for start in range(0, runs, size)
    ]


def train_and_evaluate(
    work: list[Job],
    train_set: tuple[Tensor, Tensor],
    test_set: tuple[Tensor, Tensor],
    variant: BoundedLogits,
    schedule: Optimiser,
) -> Iterator[tuple[pd.DataFrame, Evaluation]]:
    """Yield the table of runs and the evaluation of each job.

    The sets are images `[N, 28, 28]` in [0, 1] and labels 0 and 1 `[N]`. Raises BlaError if a loss is not finite.
    """

    def run(job: Job) -> tuple[pd.DataFrame, Evaluation]:
        pooling, column, seeds, start = job
        module = None if column == "bl" else variant
        network = train(*train_set, pooling, module, seeds, schedule)
        result = evaluate(*test_set, pooling, module, network)
        table = table_of_runs(result).assign(pooling=pooling, column=column, seed=seeds)
        return table.assign(run=table["run"] + start, n_train_images=len(train_set[1])), result

    workers = torch.get_num_threads() if train_set[0].device.type == "cpu" else 1
    return side_by_side(run, work, workers)
