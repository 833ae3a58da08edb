"""One column of Table 1: train all runs, then evaluate them with hard and soft explanations."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from bla.base.specs import Schedule, Variant
from bla.method.evaluation import evaluate
from bla.method.modules import Evaluation, Head, Trained
from bla.method.training import train
from bla.runtime.seeds import derive_seed


def train_column(
    train_set: tuple[Tensor, Tensor],
    test_set: tuple[Tensor, Tensor],
    variant: Variant,
    head: Head,
    seeds: Sequence[int],
    schedule: Schedule,
    first_epoch: int,
    device: torch.device,
    progress: Callable[[int], object] = lambda runs: None,
) -> tuple[Trained, Evaluation]:
    """Run r starts from head r. `train_set` is features `[D, N, n, C]` and labels `[N]`, `test_set` `[M, n, C]` and `[M]`.

    Raises BlaError if a loss is not finite.
    """
    trained = train(*train_set, variant, head, seeds, schedule, first_epoch, progress=progress, device=device)
    return trained, evaluate(*test_set, variant, trained, [derive_seed(s, "evaluation") for s in seeds], device)
