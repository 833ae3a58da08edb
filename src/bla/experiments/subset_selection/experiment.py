"""BLA-T and L2X select features of synthetic samples whose relevant features are known.

Selector and predictor train together, on the probabilities of the model that they explain. In training the predictor
sees each feature times its weight in the soft explanation, in the test the selected features alone. The weights of
BLA-T sum to 1 at most, so they are multiplied by n: equal weights change nothing, as in section 4.1's small network.

    networks = train("xor", variant, 10000, seeds, schedule, device)        # one run for each seed
    table, features = evaluate("xor", variant, networks, test, seed)        # a row per run; how often features are selected

Source: Chen et al. 2018; Baumhauer et al. 2021, sections 3.1 and 3.2.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from bla.base.errors import BlaError
from bla.base.specs import L2XF, BoundedLogits, Optimiser
from bla.experiments.subset_selection.data import FEATURES, SETS, Samples, generate
from bla.experiments.subset_selection.measures import median_ranks, recovery, selected_shares
from bla.experiments.subset_selection.networks import Networks, initial
from bla.method.equations import hard_explanation, hard_weights, logits_of, noise_shape, soft_explanation
from bla.runtime.adam import Adam
from bla.runtime.generators import draw, generators_of
from bla.runtime.seeds import derive_seed

Selection = BoundedLogits | L2XF
STATISTICS_SAMPLES = 1024
"""Largest number of training samples for the statistics of batch normalisation in tests."""


def train(
    name: str, variant: Selection, count: int, seeds: Sequence[int], schedule: Optimiser, device: torch.device
) -> Networks:
    """Train selector and predictor of each seed on `count` samples of a set, all seeds at once.

    Samples, initial weights and batches depend on the seed alone, not on the variant. Raises BlaError if a batch has a
    single sample, which batch normalisation cannot use, or if a loss is not finite.
    """
    if min(schedule.batch_size, count % schedule.batch_size or count) == 1:
        raise BlaError(
            f"{count} training samples in batches of {schedule.batch_size} leave one sample alone; change one"
        )
    generators, noise = generators_of(seeds), generators_of([derive_seed(seed, "noise") for seed in seeds])
    samples = [generate(name, count, generator) for generator in generators]
    x, targets = (torch.stack([part[i] for part in samples]).to(device) for i in (0, 1))  # [R, N, n], [R, N]
    networks = initial(generators, SETS[name].activation, device)
    adam, rows = (
        Adam(networks.parameters(), schedule.learning_rate, schedule.adam_epsilon),
        torch.arange(len(seeds))[:, None],
    )
    for epoch in range(schedule.epochs):
        orders = torch.stack([torch.randperm(count, generator=generator) for generator in generators])
        for batch in orders.split(schedule.batch_size, dim=1):
            answer = networks.answer(soft_input(variant, networks, x[rows, batch], noise), training=True)
            loss = binary_cross_entropy_with_logits(answer, targets[rows, batch], reduction="none").mean(dim=1)
            adam.minimise(
                loss.sum() + networks.penalty()
            )  # runs share no parameters: the gradients are those of each run
        if not loss.isfinite().all():
            raise BlaError(f"the training loss is not finite in epoch {epoch + 1}; lower the learning rate")
    with torch.no_grad():  # the statistics of the trained networks, not of the networks during training
        networks.answer(soft_input(variant, networks, x[:, :STATISTICS_SAMPLES], noise), training=True)
    return networks


def soft_input(variant: Selection, networks: Networks, x: Tensor, noise: Sequence[torch.Generator]) -> Tensor:
    """The samples `[R, B, n]` as the predictor sees them in training."""
    shape, logits = noise_shape(variant, FEATURES), logits_of(variant, networks.scores(x))
    uniform = None if shape is None else draw(shape, x.shape[1], noise).to(x.device)
    weights = soft_explanation(variant, logits, uniform)
    return x * weights if isinstance(variant, L2XF) else x * (FEATURES * weights)


def hard_input(variant: Selection, hard: Tensor, x: Tensor) -> Tensor:
    """The samples `[R, B, n]` as the predictor sees them in the test: the selected features, bool `[R, B, n]`."""
    return x * hard if isinstance(variant, L2XF) else x * (FEATURES * hard_weights(variant, hard))


@torch.no_grad()
def evaluate(
    name: str, variant: Selection, networks: Networks, test: Samples, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A row per run, and a row per run, set of relevant features, and feature; test samples are shared by all runs.

    `median_rank` ranks the hard explanation, `logit_median_rank` the logits; ties are in random order, which depends on
    `seed`. `accuracy` is the share of samples for which the predictor, from the hard explanation, and the explained
    model, from all features, find the same class more probable. The second table has the share of samples in which a
    feature is `selected`.
    """
    runs, device = len(networks.predictor[0].weight), networks.predictor[0].weight.device
    x = test.x.to(device).expand(runs, -1, -1)
    logits = logits_of(variant, networks.scores(x))
    hard = hard_explanation(variant, logits)
    answer = networks.answer(hard_input(variant, hard, x), training=False)
    relevant, ties = test.relevant.numpy(), np.random.default_rng(seed).random(test.relevant.shape)
    selected = hard.cpu().numpy()
    ranks = {
        key: median_ranks(scores, relevant, ties).mean(axis=1)
        for key, scores in (
            ("median_rank", selected.astype(float)),
            ("logit_median_rank", logits.double().cpu().numpy()),
        )
    }
    correct = (answer > 0).cpu() == (test.probability > 0.5)
    table = pd.DataFrame({"data": name, "run": range(runs), "n_samples": len(test.x)} | ranks)
    table = table.assign(**recovery(selected, relevant), accuracy=correct.double().mean(dim=1).numpy())
    cases, shares = selected_shares(selected, relevant)
    index = pd.MultiIndex.from_product([range(runs), range(len(cases)), range(1, FEATURES + 1)], names=["run", "case", "feature"])  # fmt: skip
    features = pd.DataFrame({"selected": shares.ravel()}, index).reset_index()
    return table, features.assign(data=name, relevant=np.broadcast_to(cases, shares.shape).ravel())
