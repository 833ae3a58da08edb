"""L2X with two networks on digits of 28x28 pixels: which 4 of 49 patches carry the decision of a trained small CNN?

The explained model is section 4.1's network without explanations. Selector and second network are networks of
the same kind, trained from scratch together: the selector's convolutions and a 1x1 convolution give every patch of 4x4
pixels a logit, and the second network, shown only the chosen patches, imitates the model's probabilities.

    selector, second = train(images, model, reading, k, seeds, schedule)
    table = evaluate(test_images, test_labels, model, selector, second, reading, k, seeds)
    rows = train_and_evaluate(train_set, test_set, readings, k, runs, model_schedule, schedule)    # both: a row per run

Post-hoc accuracy is the share of images for which the *model* makes the same decision if it sees only the k patches
with the largest logits. The paper quotes 0.958 on MNIST's 3 and 8, from Chen et al. 2018.

Sources: Chen et al. 2018; Baumhauer et al. 2021, section 4.1.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from bla.base.errors import BlaError
from bla.base.specs import L2XReading, Optimiser
from bla.experiments.two_network_l2x.l2x import sample, shown
from bla.method.equations import largest_cells
from bla.method.modules import EVALUATION_CHUNK
from bla.networks import small_cnn
from bla.networks.small_cnn import CELLS, GRID, SIDE, SmallCNN, initial
from bla.runtime.adam import Adam
from bla.runtime.seeds import derive_seed


def train(
    images: Tensor, model: SmallCNN, reading: L2XReading, k: int, seeds: Sequence[int], schedule: Optimiser
) -> tuple[SmallCNN, SmallCNN]:
    """Train a selector and a second network for each seed on images `[N, 28, 28]` in [0, 1], all seeds at once.

    `model` has R runs, one per seed, a flat map and no module. The initial weights of a run depend only on its seed,
    not on the reading. Raises BlaError if a loss is not finite.
    """
    device = images.device
    model = model.moved(lambda t: t.to(device))
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    selector, second = (
        initial(generators, "flat", with_module).moved(lambda t: t.to(device).requires_grad_())
        for with_module in (True, False)
    )
    parameters = [*selector.parameters(), *second.parameters()]  # the selector's dense unit has no gradient: unchanged
    adam = Adam(parameters, schedule.learning_rate, schedule.adam_epsilon)
    with torch.no_grad():
        targets = torch.cat(
            [answer(model, x.expand(len(seeds), *x.shape)) for x in images.split(EVALUATION_CHUNK)], dim=1
        )
    targets = targets.sigmoid()  # [R, N]
    for epoch in range(schedule.epochs):
        orders = torch.stack([torch.randperm(len(images), generator=g) for g in generators])
        for batch in orders.split(schedule.batch_size, dim=1):
            x = images[batch.to(device)]  # [R, B, 28, 28]
            uniform = torch.stack([torch.rand(batch.shape[1], k, CELLS, generator=g) for g in generators]).to(device)
            mask = sample(reading, k, logits_of(selector, x), uniform)
            target = targets.gather(1, batch.to(device))
            loss = binary_cross_entropy_with_logits(answer(second, seen(x, mask)), target, reduction="none").mean(dim=1)
            adam.minimise(loss.sum())  # runs share no parameters, so the gradients of the sum are those of each run
        if not loss.isfinite().all():
            raise BlaError(f"the training loss is not finite in epoch {epoch + 1}; lower the learning rate")
    return selector.moved(lambda t: t.detach()), second.moved(lambda t: t.detach())


@torch.no_grad()
def evaluate(
    images: Tensor,
    labels: Tensor,
    model: SmallCNN,
    selector: SmallCNN,
    second: SmallCNN,
    reading: L2XReading,
    k: int,
    seeds: Sequence[int],
) -> dict[str, Tensor]:
    """Accuracies of each run on images `[N, 28, 28]`, and the soft masks' mean `soft_brightness`; `[R]` each.

    Post-hoc accuracy is the model's, with the chosen and with random patches; soft and hard accuracy are the second
    network's, compared with the labels. The random numbers of a chunk depend only on (seed, number of the chunk).
    """
    device, runs = images.device, len(seeds)
    model, selector, second = (network.moved(lambda t: t.to(device)) for network in (model, selector, second))
    results: dict[str, list[Tensor]] = {}
    for chunk, (part, y) in enumerate(zip(images.split(EVALUATION_CHUNK), labels.split(EVALUATION_CHUNK), strict=True)):
        x, y = part.expand(runs, *part.shape), y > 0.5
        generators = [torch.Generator().manual_seed(derive_seed(seed, chunk)) for seed in seeds]
        uniform = torch.stack([torch.rand(len(part), k + 1, CELLS, generator=g) for g in generators]).to(device)
        logits = logits_of(selector, x)
        soft, hard = sample(reading, k, logits, uniform[:, :, :k]), largest_cells(logits, k)
        random, decided = largest_cells(uniform[:, :, k], k), answer(model, x) > 0
        by_mask = {
            "posthoc_accuracy": (answer(model, seen(x, hard.float())) > 0) == decided,
            "random_posthoc_accuracy": (answer(model, seen(x, random.float())) > 0) == decided,
            "soft_accuracy": (answer(second, seen(x, soft)) > 0) == y,
            "hard_accuracy": (answer(second, seen(x, hard.float())) > 0) == y,
            "model_accuracy": decided == y,
            "soft_brightness": soft.mean(dim=2),
        }
        for name, values in by_mask.items():
            results.setdefault(name, []).append(values.double().cpu())
    return {name: torch.cat(parts, dim=1).mean(dim=1) for name, parts in results.items()}


def logits_of(selector: SmallCNN, images: Tensor) -> Tensor:
    """The selector's logits `[R, B, 49]` of each run's images `[R, B, 28, 28]`."""
    assert selector.module is not None
    return selector.module(selector.features(images))


def answer(network: SmallCNN, images: Tensor) -> Tensor:
    """The dense unit's logits `[R, B]` of each run's images `[R, B, 28, 28]`."""
    return network.answer(network.features(images), None, "flat")


def seen(images: Tensor, mask: Tensor) -> Tensor:
    """Images `[R, B, 28, 28]`, each patch multiplied by its brightness in the mask `[R, B, 49]`."""
    return images * shown(mask.unflatten(-1, GRID), (SIDE, SIDE))


class Runs(NamedTuple):
    """Runs that train together: the number of the first, the explained models' seeds, the selectors' seeds."""

    first: int
    model_seeds: list[int]
    seeds: list[int]


def published(reading: L2XReading) -> bool:
    """Whether the paper's text allows this reading: it mentions no background colour or straight-through gradient."""
    return reading.background == "black" and not reading.straight_through


def train_and_evaluate(
    train_set: tuple[Tensor, Tensor],
    test_set: tuple[Tensor, Tensor],
    readings: Mapping[str, L2XReading],
    k: int,
    runs: Runs,
    model_schedule: Optimiser,
    schedule: Optimiser,
) -> list[dict[str, object]]:
    """Train and evaluate some runs under every reading: a row per run and reading.

    The sets are images `[N, 28, 28]` in [0, 1] and labels 0 and 1. Raises BlaError if a loss is not finite.
    """
    model = small_cnn.train(*train_set, "flat", None, runs.model_seeds, model_schedule)
    rows = []
    for name, reading in readings.items():
        trained = train(train_set[0], model, reading, k, runs.seeds, schedule)
        result = evaluate(*test_set, model, *trained, reading, k, runs.seeds)
        for place, seed in enumerate(runs.seeds):
            row: dict[str, object] = {"reading": name, "temperature": reading.temperature, "k": k}
            row |= {"run": runs.first + place, "seed": seed}
            row |= {"n_train_images": len(train_set[1]), "n_images": len(test_set[1])}
            rows.append(row | {measure: values[place].item() for measure, values in result.items()})
    return rows
