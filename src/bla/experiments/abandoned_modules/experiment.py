"""The two explanation modules that the paper abandoned: with more context than BLA, and with less.

A *concept vector* g of the whole image is added to every cell, l_i = min(u.(g + f_i) + b, 0). Since u.(g + f_i) =
u.f_i + u.g, it only shifts all scores of an image by u.g. A softmax is invariant to that shift. Far below the bound no
logit is clipped, so two logits are hardly ever equal, and the explanation is a single cell. *Pointwise attention* gives
each cell its own sigmoid, so that cells do not compete for weight.

    for first, result in train_runs(train, test, variant, head, seeds, schedule, device):
        runs = table_of_runs(result)       # runs first, first + 1, ...

Source: Baumhauer et al. 2021, section 3.3 and Figure 24, after Jetley et al. 2018, Park et al. 2018 and Woo et al.
2018.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from bla.base.specs import ConceptVector, Explaining, Schedule
from bla.method.evaluation import evaluate
from bla.method.modules import Evaluation, Head
from bla.method.training import train
from bla.runtime.seeds import derive_seed


def train_runs(
    train_set: tuple[Tensor, Tensor],
    test_set: tuple[Tensor, Tensor],
    variant: Explaining,
    head: Head,
    seeds: Sequence[int],
    schedule: Schedule,
    device: torch.device,
) -> Iterator[tuple[int, Evaluation]]:
    """Train run r from head r and evaluate it. Yields groups of runs: the number of the first run, and their results.

    `train_set` is features `[D, N, n, C]` and labels `[N]`, `test_set` `[M, n, C]` and `[M]`. Raises BlaError as
    `train` does.
    """
    # A concept vector of 1,280 channels has 80 million weights: one at a time on a GPU, one per thread on a CPU.
    concept = isinstance(variant, ConceptVector)
    size = len(seeds) if not concept else torch.get_num_threads() if device.type == "cpu" else 1
    for start in range(0, len(seeds), size):
        part = slice(start, start + size)
        part_head = Head(head.weight[part], head.bias[part])
        first_epoch = schedule.epochs + start  # `train` counts runs from 0; run r reads draw (r + epoch) mod D
        trained = train(*train_set, variant, part_head, seeds[part], schedule, first_epoch, device=device)
        last = [derive_seed(seed, "evaluation") for seed in seeds[part]]
        yield start, evaluate(*test_set, variant, trained, last, device)
