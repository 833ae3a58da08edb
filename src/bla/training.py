"""Training of heads and explanation modules on cached features, many runs at once.

Every parameter, generator and result has a leading run dimension R. A run draws its shuffles, dropout and Gumbel noise
from its own generator, so it is the same run in any group. Runs of one group train together as one batched product;
a GPU takes all of them, a CPU as many as its cache holds.

    head = initial_head(seeds, channels=1280, classes=20)
    trained = train(features[None], labels, NoExplanation("none"), head, seeds, schedule)     # BL
    trained = train(features[None], labels, bla_t, trained.head, seeds, schedule)             # BLA-T, from BL's heads
    result = evaluate(test_features, test_labels, bla_t, trained, seeds)

Source: Baumhauer et al. 2021, section 4.2; optimiser and initialisation as in the authors' code (Keras).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from bla.errors import BlaError
from bla.selection import hard_explanation, hard_weights, logits_of, noise_shape, soft_explanation
from bla.specs import Explaining, NoExplanation, Schedule, Variant


@dataclass(frozen=True)
class Head:
    """R linear classifiers: `weight` `[R, K, C]`, `bias` `[R, K]`."""

    weight: Tensor
    bias: Tensor

    def __call__(self, pooled: Tensor) -> Tensor:
        """Class logits `[R, B, K]` of pooled features `[R, B, C]`."""
        return torch.einsum("rbc,rkc->rbk", pooled, self.weight) + self.bias[:, None]


@dataclass(frozen=True)
class Module:
    """R explanation modules, each a 1x1 convolution to one score per cell: `weight` `[R, C]`, `bias` `[R]`."""

    weight: Tensor
    bias: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        """Scores g `[R, B, n]` of each run's features `[R, B, n, C]`, or of the same features `[B, n, C]` for every run."""
        if features.ndim == 3:
            return torch.einsum("bnc,rc->rbn", features, self.weight) + self.bias[:, None, None]
        return torch.matmul(features, self.weight[:, None, :, None])[..., 0] + self.bias[:, None, None]


@dataclass(frozen=True)
class Trained:
    """R trained runs; `module` is None without explanations; `losses` `[R, epochs]` are the training losses."""

    head: Head
    module: Module | None
    losses: Tensor


@dataclass(frozen=True)
class Explained:
    """The explanations of R runs on N images, and what the head says with the soft ones.

    `logits`, `soft` (the pooling weights of training) and `hard` (bool) are `[R, N, n]`; `correct` bool and `loss`
    (cross-entropy in nats) are `[R, N]`, with soft explanations.
    """

    logits: Tensor
    soft: Tensor
    hard: Tensor
    correct: Tensor
    loss: Tensor


@dataclass(frozen=True)
class Evaluation:
    """What R runs did on N images with hard explanations, or with none: `correct` bool and `loss` `[R, N]`."""

    correct: Tensor
    loss: Tensor
    explained: Explained | None = None


def _glorot(shape: tuple[int, ...], fan_in: int, fan_out: int, generators: Sequence[torch.Generator]) -> Tensor:
    """Glorot-uniform numbers `[R, *shape]`, those of run r from generator r."""
    limit = (6 / (fan_in + fan_out)) ** 0.5
    return torch.stack([(torch.rand(shape, generator=g) * 2 - 1) * limit for g in generators])


def _generators(seeds: Sequence[int]) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def initial_head(seeds: Sequence[int], channels: int, classes: int) -> Head:
    """Untrained heads: Glorot-uniform weights, biases 0 (Keras' defaults)."""
    weight = _glorot((classes, channels), channels, classes, _generators(seeds))
    return Head(weight, torch.zeros(len(seeds), classes))


def pooled(features: Tensor) -> Tensor:
    """Average-pool half-precision features `[..., n, C]` to single-precision `[..., 1, C]`, summing in single precision.

    What every cell weighing 1/n sees; a map of one cell that trains BL and BL+ n times faster.
    """
    chunks = features.flatten(0, -3).split(1024)
    return torch.cat([chunk.float().mean(dim=1) for chunk in chunks]).view(*features.shape[:-2], 1, features.shape[-1])


def train(
    features: Tensor,
    labels: Tensor,
    variant: Variant,
    head: Head,
    seeds: Sequence[int],
    schedule: Schedule,
    first_epoch: int = 0,
    group: int | None = None,
    progress: Callable[[int], object] = lambda runs: None,
) -> Trained:
    """Train one run for each seed, starting from its head; nothing that is passed in changes.

    `features` `[D, N, n, C]` are D draws of the same N images, of which run r reads draw (r + epoch) mod D. They and
    `labels` `[N]` may be half precision and lie anywhere; batches are computed in single precision on their device.
    `first_epoch` goes on counting where the head's own training ended, so that a module meets further draws.
    `group` runs train together (default: what suits the device). `progress` is called with the number of runs after each
    group. Raises BlaError if a loss is not finite.
    """
    if isinstance(variant, NoExplanation) and features.shape[2] > 1:
        features = pooled(features)
    group = group or (len(seeds) if features.is_cuda else _cpu_group(features, schedule.batch_size))
    parts = []
    for start in range(0, len(seeds), group):
        runs = slice(start, start + group)
        own = Head(head.weight[runs], head.bias[runs])
        parts.append(_train_group(features, labels, variant, own, seeds[runs], schedule, start, first_epoch))
        progress(len(seeds[runs]))
    modules = [part.module for part in parts if part.module is not None]
    return Trained(
        Head(torch.cat([p.head.weight for p in parts]), torch.cat([p.head.bias for p in parts])),
        Module(torch.cat([m.weight for m in modules]), torch.cat([m.bias for m in modules])) if modules else None,
        torch.cat([part.losses for part in parts]),
    )


def _cpu_group(features: Tensor, batch_size: int) -> int:
    """As many runs as keep the single-precision features of one step within 16 MiB.

    Measured on two cores: all 20 runs for a 7x7x96 map (2.5 times faster than one by one), 2 for a 7x7x1280 map.
    """
    return max(1, 2**24 // (4 * batch_size * features[0, 0].numel()))


def _train_group(
    features: Tensor,
    labels: Tensor,
    variant: Variant,
    head: Head,
    seeds: Sequence[int],
    schedule: Schedule,
    first_run: int,
    first_epoch: int,
) -> Trained:
    device, (draws, images, cells, channels), runs = features.device, features.shape, len(seeds)
    features = features.flatten(0, 1)
    generators = _generators(seeds)
    start = head
    head = Head(head.weight.to(device).clone(), head.bias.to(device).clone())
    module = None
    if not isinstance(variant, NoExplanation):
        weight = _glorot((channels,), channels, 1, generators).to(device)
        module = Module(weight, torch.zeros(runs, device=device))

    parameters = [] if variant.head == "frozen" else [head.weight, head.bias]
    parameters += [module.weight, module.bias] if module else []
    for parameter in parameters:
        parameter.requires_grad_(True)
    optimiser = torch.optim.Adam(parameters, lr=schedule.learning_rate, eps=schedule.adam_epsilon, foreach=True)

    # One pair of buffers for all batches: fresh ones would cost more than the arithmetic.
    largest = runs * min(schedule.batch_size, images)
    gathered = torch.empty(largest, cells, channels, dtype=features.dtype, device=device)
    converted = torch.empty(largest, cells, channels, device=device)

    losses = torch.zeros(runs, schedule.epochs, device=device)
    for epoch in range(schedule.epochs):
        orders = torch.stack([torch.randperm(images, generator=g) for g in generators]).to(device)
        draw = (torch.arange(first_run, first_run + runs, device=device) + first_epoch + epoch) % draws
        for batch in orders.split(schedule.batch_size, dim=1):
            rows = slice(batch.numel())
            torch.index_select(features, 0, (draw[:, None] * images + batch).flatten(), out=gathered[rows])
            x = converted[rows].copy_(gathered[rows]).view(*batch.shape, cells, channels)  # [R, B, n, C]
            y = labels[batch]
            if isinstance(variant, NoExplanation):
                v = x[:, :, 0]
            else:
                assert module is not None
                noise = _noise(variant, cells, batch.shape[1], generators, device)
                weights = soft_explanation(variant, logits_of(variant, module(x)), noise)
                v = torch.matmul(weights[..., None, :], x)[..., 0, :]  # "rbn,rbnc->rbc"
            if schedule.dropout:
                kept = _draw((channels,), batch.shape[1], generators, device)
                v = v * (kept >= schedule.dropout) / (1 - schedule.dropout)
            loss = cross_entropy(head(v).flatten(0, 1), y.flatten(), reduction="none").view(runs, -1)
            optimiser.zero_grad()
            loss.mean(dim=1).sum().backward()  # runs share no parameter: the sum keeps their gradients apart
            optimiser.step()
            losses[:, epoch] += loss.detach().sum(dim=1) / images
        if not losses[:, epoch].isfinite().all():
            raise BlaError(f"the training loss is not finite in epoch {epoch + 1}; lower training.learning_rate")

    if variant.head == "trained_reloaded":
        head = start
    head = Head(head.weight.detach().cpu(), head.bias.detach().cpu())
    module = Module(module.weight.detach().cpu(), module.bias.detach().cpu()) if module else None
    return Trained(head, module, losses.cpu())


def _draw(shape: tuple[int, ...], images: int, generators: Sequence[torch.Generator], device: torch.device) -> Tensor:
    """Uniform numbers `[R, images, *shape]`, those of run r from generator r."""
    return torch.stack([torch.rand(images, *shape, generator=g) for g in generators]).to(device)


def _noise(
    variant: Explaining, cells: int, images: int, generators: Sequence[torch.Generator], device: torch.device
) -> Tensor | None:
    """The uniform numbers that the soft explanations of so many images need, or None."""
    shape = noise_shape(variant, cells)
    return None if shape is None else _draw(shape, images, generators, device)


@torch.no_grad()
def evaluate(features: Tensor, labels: Tensor, variant: Variant, trained: Trained, seeds: Sequence[int]) -> Evaluation:
    """Evaluate every run on the clean features of images `[N, n, C]`, without dropout, with hard and soft explanations.

    `seeds`, one for each run, fix the samples of L2X-F's soft explanations: they stay random in evaluation (code).
    """
    head = Head(trained.head.weight.to(features.device), trained.head.bias.to(features.device))
    if isinstance(variant, NoExplanation) or trained.module is None:
        pairs = zip(pooled(features)[:, 0].split(EVALUATION_CHUNK), labels.split(EVALUATION_CHUNK), strict=True)
        scored = [[value.cpu() for value in _score(head, v[None], y)] for v, y in pairs]
        correct, loss = (torch.cat(values, dim=1) for values in zip(*scored, strict=True))
        return Evaluation(correct, loss)
    module = Module(trained.module.weight.to(features.device), trained.module.bias.to(features.device))
    chunks = []
    generators = _generators(seeds)
    for x, y in zip(features.split(EVALUATION_CHUNK), labels.split(EVALUATION_CHUNK), strict=True):
        noise = _noise(variant, x.shape[1], len(x), generators, x.device)
        chunks.append([value.cpu() for value in _explain(x.float(), y, variant, head, module, noise)])
    correct, loss, *explained = (torch.cat(values, dim=1) for values in zip(*chunks, strict=True))
    return Evaluation(correct, loss, Explained(*explained))


EVALUATION_CHUNK = 512
"""Images evaluated at once: it bounds memory, and changes results by rounding alone."""


def _explain(
    x: Tensor, y: Tensor, variant: Explaining, head: Head, module: Module, noise: Tensor | None
) -> tuple[Tensor, ...]:
    """For the images `[B, n, C]`: correct and loss with hard explanations, then the fields of `Explained`."""
    logits = logits_of(variant, module(x))  # [R, B, n]
    hard, soft = hard_explanation(variant, logits), soft_explanation(variant, logits, noise)
    by_hard, by_soft = (_score(head, torch.einsum("rbn,bnc->rbc", w, x), y) for w in (hard_weights(hard), soft))
    return *by_hard, logits, soft, hard, *by_soft


def _score(head: Head, v: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Whether the prediction is right, and its cross-entropy, `[R, B]` each, for pooled features `[R, B, C]`."""
    class_logits = head(v.expand(len(head.weight), -1, -1))
    targets = labels.expand(len(head.weight), -1)
    loss = cross_entropy(class_logits.flatten(0, 1), targets.flatten(), reduction="none").view_as(targets)
    return class_logits.argmax(dim=2) == targets, loss
