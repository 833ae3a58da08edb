"""A group of runs that train together: their parameters, their batches, and one training step.

Tensors have the leading dimensions `[R, S]`: R runs of S variants. The variants of a run share its seed, hence its
images and dropout, so the features of a batch are read once for all of them.

    parameters = Parameters.initial(variants, head, seeds, cells, channels, device)
    step = Replayed(Step(parameters, variants, schedule, ...), device)
    for batch in batches.epoch(draws):
        step(*batch)
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor

from bla.base.specs import L2XF, BoundedLogits, NoExplanation, Schedule, Variant
from bla.method.equations import logits_of, noise_shape, soft_explanation, soft_weights, threshold
from bla.method.initialisation import initial_module
from bla.method.modules import Concept, Head, Module, Trained, pooled
from bla.method.scores import losses
from bla.method.streaming import pools
from bla.runtime.adam import Adam
from bla.runtime.generators import draw, generators_of
from bla.runtime.seeds import derive_seed

DRAWN_AT_ONCE = 16
"""Number of batches whose random numbers are drawn by one call per run: a GPU would wait for a call per batch."""


@dataclass(frozen=True)
class Parameters:
    """Heads `weight` `[R, S, K, C]`, `bias` `[R, S, K]`, and modules `u` `[R, S, C]`, `b` `[R, S]` if there are any.

    `concept` is for a single variant. `frozen` says which variants' heads do not train; `held` bool `[S, 1]` is the
    same as a tensor, and None if it is the same for all variants.
    """

    weight: Tensor
    bias: Tensor
    u: Tensor | None
    b: Tensor | None
    concept: Concept | None
    frozen: tuple[bool, ...]
    held: Tensor | None

    @classmethod
    def initial(
        cls,
        variants: Sequence[Variant],
        start: Head,
        seeds: Sequence[int],
        cells: int,
        channels: int,
        device: torch.device,
    ) -> "Parameters":
        """The given heads and untrained modules; tensors that train require gradients."""
        count, first = len(variants), variants[0]
        frozen = tuple(variant.head == "frozen" for variant in variants)
        held = torch.tensor(frozen, device=device)[:, None] if len(set(frozen)) > 1 else None
        weight, bias = (torch.stack([t] * count, dim=1).to(device) for t in (start.weight, start.bias))
        u = b = concept = None
        if not isinstance(first, NoExplanation):
            module = initial_module(first, cells, channels, generators_of(seeds))
            u, b = (torch.stack([t] * count, dim=1).to(device) for t in (module.weight, module.bias))
            concept = module.to(device).concept
        parameters = cls(weight, bias, u, b, concept, frozen, held)
        for tensor in parameters.trainable():
            tensor.requires_grad_(True)
        return parameters

    def trainable(self) -> list[Tensor]:
        """The tensors that the optimiser changes."""
        heads = [] if all(self.frozen) else [self.weight, self.bias]
        modules = [] if self.u is None or self.b is None else [self.u, self.b]
        return [*heads, *modules, *([self.concept.weight, self.concept.bias] if self.concept else [])]

    def head(self) -> tuple[Tensor, Tensor]:
        """Weights and biases of the heads, detached where frozen, so that Adam leaves them unchanged."""
        if self.held is None:
            return self.weight, self.bias
        weight = torch.where(self.held[..., None], self.weight.detach(), self.weight)
        return weight, torch.where(self.held, self.bias.detach(), self.bias)

    def scores(self, x: Tensor) -> Tensor | None:
        """The modules' scores `[R, S, B, n]` of features `[R, B, n, C]`; None without modules."""
        if self.u is None or self.b is None:
            return None
        scores = torch.einsum("rbnc,rsc->rsbn", x, self.u) + self.b[..., None, None]
        return scores + self.concept(x, self.u[:, 0])[:, None] if self.concept else scores

    def results(self, variants: Sequence[Variant], start: Head, losses: Tensor) -> list[Trained]:
        """The trained heads and modules, one result per variant, on the CPU; `losses` `[R, S, epochs]`."""
        results = []
        for s, variant in enumerate(variants):
            head = Head(self.weight[:, s].detach().cpu(), self.bias[:, s].detach().cpu())
            if variant.head in ("frozen", "trained_reloaded"):
                head = Head(start.weight.detach().cpu().clone(), start.bias.detach().cpu().clone())
            module = None if self.u is None or self.b is None else Module(self.u[:, s], self.b[:, s], self.concept)
            results.append(Trained(head, module and module.moved(lambda t: t.detach().cpu()), losses[:, s].cpu()))
        return results


class Batch(NamedTuple):
    """The images `rows` `[R, B]` of `stored` features `[M, n, C]`, their `labels` `[R, B]` or `[R, B, K]`, and random numbers.

    `keep` bool `[R, B, C]`: the channels that dropout keeps; `noise` `[R, B, k, n]`: uniform numbers. Both are None if
    not needed.
    """

    stored: Tensor
    rows: Tensor
    labels: Tensor
    keep: Tensor | None
    noise: Tensor | None


class Batches:
    """The batches of R runs, epoch by epoch, each run with its own random streams.

    Order, dropout and noise have separate streams, so that no stream depends on the variant or on how many numbers are
    drawn at once.
    """

    def __init__(
        self,
        features: Tensor,
        labels: Tensor,
        cells: int,
        seeds: Sequence[int],
        schedule: Schedule,
        noise: tuple[int, ...] | None,
        device: torch.device,
    ) -> None:
        self.features, self.labels, self.cells, self.schedule = features, labels, cells, schedule
        self.noise, self.device = noise, device
        self.orders = generators_of([derive_seed(seed, "order") for seed in seeds])
        self.dropouts, self.noises = (
            generators_of([derive_seed(seed, what) for seed in seeds], device) for what in ("dropout", "noise")
        )

    def epoch(self, draws: Tensor) -> Iterator[Batch]:
        """One pass over the images; run r uses draw `draws[r]`."""
        size, limit, rate = self.schedule.batch_size, self.schedule.images_in_memory, self.schedule.dropout
        for pool in pools(self.features, self.labels, draws, self.orders, limit, size, self.device):
            stored = pooled(pool.features) if pool.features.shape[2] > self.cells else pool.features
            all_rows = (pool.draw * stored.shape[1])[:, None] + pool.orders
            all_labels, stored = pool.labels[pool.orders], stored.flatten(0, 1)
            blocks = (t.split(DRAWN_AT_ONCE * size, dim=1) for t in (all_rows, all_labels))
            for rows, labels in zip(*blocks, strict=True):
                count = rows.shape[1]
                keep = draw((stored.shape[2],), count, self.dropouts) >= rate if rate else None
                noise = draw(self.noise, count, self.noises) if self.noise else None
                for at in range(0, count, size):
                    part = slice(at, at + size)
                    random = (None if t is None else t[:, part] for t in (keep, noise))
                    yield Batch(stored, rows[:, part], labels[:, part], *random)


class Step:
    """One training step, as a function that a GPU can replay; `total` `[R, S]` is the sum of the images' losses."""

    def __init__(
        self,
        parameters: Parameters,
        variants: Sequence[Variant],
        schedule: Schedule,
        largest_batch: int,
        cells: int,
        dtype: torch.dtype,
    ) -> None:
        device, (runs, count, _, channels) = parameters.weight.device, parameters.weight.shape
        self.parameters, self.dropout = parameters, schedule.dropout
        self.adam = Adam(parameters.trainable(), schedule.learning_rate, schedule.adam_epsilon)
        self.weights_of = explanations(variants, device)
        self.total = torch.zeros(runs, count, device=device)
        # One pair of buffers for all batches: allocating new ones would cost more than the arithmetic.
        self.gathered = torch.empty(runs * largest_batch, cells, channels, dtype=dtype, device=device)
        self.converted = torch.empty(runs * largest_batch, cells, channels, device=device)

    def __call__(self, stored: Tensor, rows: Tensor, labels: Tensor, keep: Tensor | None, noise: Tensor | None) -> None:
        """Update the parameters and `total`; the arguments are the fields of a `Batch`."""
        x = self._features(stored, rows)
        scores = self.parameters.scores(x)
        # [R, S, B, C]; without modules there is one cell, the average
        v = x.transpose(1, 2) if scores is None else torch.einsum("rsbn,rbnc->rsbc", self.weights_of(scores, noise), x)
        if keep is not None:
            v = v * keep[:, None] / (1 - self.dropout)
        weight, bias = self.parameters.head()
        outputs = torch.einsum("rsbc,rskc->rsbk", v, weight) + bias[:, :, None]
        loss = losses(outputs, labels[:, None])  # [R, S, B]
        self.adam.minimise(
            loss.mean(dim=2).sum()
        )  # runs share no parameters, so the gradients of the sum are those of each run
        self.total.add_(loss.detach().sum(dim=2))

    def _features(self, stored: Tensor, rows: Tensor) -> Tensor:
        """Single-precision features `[R, B, n, C]` of the rows `[R, B]`."""
        count = slice(rows.numel())
        torch.index_select(stored, 0, rows.flatten(), out=self.gathered[count])
        features: Tensor = self.converted[count].copy_(self.gathered[count])
        return features.view(*rows.shape, *features.shape[1:])


def noise_of(variants: Sequence[Variant], cells: int) -> tuple[int, ...] | None:
    """The shape of the noise for one image; variants that train together must agree on it."""
    shapes = {noise_shape(v, cells) for v in variants if not isinstance(v, NoExplanation)} - {None}
    (shape,) = shapes or {None}
    return shape


def explanations(variants: Sequence[Variant], device: torch.device) -> Callable[[Tensor, Tensor | None], Tensor]:
    """The function from scores `[R, S, B, n]`, and noise `[R, B, k, n]` if any, to the S variants' pooling weights.

    Neighbouring variants that differ only in temperature and threshold are computed together.
    """
    kinds = []
    for _, group in groupby(variants, lambda v: v.threshold_rule if isinstance(v, BoundedLogits) else v):
        members = list(group)
        numbers = [(v.temperature, v.threshold_factor) for v in members if isinstance(v, BoundedLogits)]
        settings = torch.tensor(numbers, device=device)[..., None, None].unbind(1) if len(numbers) > 1 else None
        kinds.append((members[0], len(members), settings))

    def weights_of(scores: Tensor, noise: Tensor | None) -> Tensor:
        weights = []
        parts = scores.split([count for _, count, _ in kinds], dim=1)
        for (variant, _, settings), part in zip(kinds, parts, strict=True):
            assert not isinstance(variant, NoExplanation)
            logits = logits_of(variant, part)
            if settings and isinstance(variant, BoundedLogits):
                temperature, factor = settings
                weights.append(threshold(soft_weights(logits, temperature), factor, variant.threshold_rule))
            else:
                uniform = noise[:, None] if noise is not None and isinstance(variant, L2XF) else None
                weights.append(soft_explanation(variant, logits, uniform))
        return weights[0] if len(weights) == 1 else torch.cat(weights, dim=1)

    return weights_of
