"""One column of Table 1: train all runs, then evaluate them with hard and soft explanations."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from bla.base.specs import NoExplanation, Schedule, Variant
from bla.explainers.interface import TrainingData
from bla.explainers.learned.attention import Attention
from bla.method.evaluation import evaluate
from bla.method.modules import Evaluation, Head, Trained
from bla.method.scores import scores_of
from bla.method.training import train
from bla.networks.classifier import Classifier, NoBackbone
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
    """Train run r from head r, and evaluate it.

    `train_set` is features `[D, N, n, C]` and labels `[N]`, `test_set` `[M, n, C]` and `[M]`. Raises BlaError if a loss
    is not finite.
    """
    features, labels = train_set
    if isinstance(variant, NoExplanation):
        trained = train(features, labels, variant, head, seeds, schedule, first_epoch, progress=progress, device=device)
    else:
        method = Attention(Classifier(NoBackbone(), head, scores_of(labels)), variant)
        data = TrainingData(features, None, None, labels, schedule, device, first_epoch)
        trained = Trained.from_state(method.fit(data, seeds, progress))
    return trained, evaluate(*test_set, variant, trained, [derive_seed(s, "evaluation") for s in seeds], device)
