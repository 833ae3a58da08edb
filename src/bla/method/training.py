"""Training of heads and explanation modules on cached features, many runs at once.

Every parameter, generator and result has a leading run dimension R. A run draws its shuffles, dropout and Gumbel noise
from generators of its own, so it is the same run in any group. Runs of one group train together as one batched product. A
GPU takes all of them, and replays each step as a CUDA graph; a CPU takes as many as its cache holds, one group in each
thread: operations this small gain little from threads of their own. Variants whose runs have equal seeds train on the same
batches (`train_sweep`).

    head = initial_head(seeds, channels=1280, classes=20)
    trained = train(features[None], labels, NoExplanation("none"), head, seeds, schedule)     # BL
    trained = train(features[None], labels, bla_t, trained.head, seeds, schedule)             # BLA-T, from BL's heads
    result = evaluate(test_features, test_labels, bla_t, trained, seeds)

Source: Baumhauer et al. 2021, section 4.2; optimiser and initialisation as in the authors' code (Keras).
"""

from collections.abc import Callable, Sequence
from itertools import groupby

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from bla.base.errors import BlaError
from bla.base.specs import L2XF, BoundedLogits, ConceptVector, NoExplanation, Schedule, Variant
from bla.method.equations import (
    logits_of,
    noise_shape,
    soft_explanation,
    soft_weights,
    threshold,
)
from bla.method.initialisation import initial_module
from bla.method.modules import Concept, Head, Module, Trained, pooled
from bla.method.streaming import pools
from bla.runtime.adam import Adam
from bla.runtime.cuda_graphs import Replayed
from bla.runtime.generators import draw, generators_of
from bla.runtime.seeds import derive_seed
from bla.runtime.threads import side_by_side


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
    device: torch.device | None = None,
) -> Trained:
    """Train one run for each seed, starting from its head; nothing that is passed in changes.

    `features` `[D, N, n, C]` are D draws of the same N images, of which run r reads draw (r + epoch) mod D. They and
    `labels` `[N]` may be half precision and lie anywhere, a memory map included (`schedule.images_in_memory`); batches are
    computed in single precision on `device` (default: theirs). `first_epoch` goes on counting where the head's own training
    ended, so that a module meets further draws. `group` runs train together (default: what suits the device; concept
    vectors, and whatever streams, one by one). `progress` is called with the number of runs after each group. Raises
    BlaError if a loss is not finite, or if a concept vector needs more memory than there is.
    """
    return train_sweep(
        features, labels, [variant], head, seeds, schedule, first_epoch, group=group, progress=progress, device=device
    )[0]


def train_sweep(
    features: Tensor,
    labels: Tensor,
    variants: Sequence[Variant],
    head: Head,
    seeds: Sequence[int],
    schedule: Schedule,
    first_epoch: int = 0,
    *,
    group: int | None = None,
    progress: Callable[[int], object] = lambda runs: None,
    device: torch.device | None = None,
) -> list[Trained]:
    """What `train` gives for each variant, all at once: run r of every variant has the same seed.

    So it starts from the same numbers, and sees the same images in the same order with the same dropout, which are read
    and converted once for all. Several variants must have modules, and none a concept vector.
    """
    assert len(variants) == 1 or not any(isinstance(v, NoExplanation | ConceptVector) for v in variants)
    device, first, asked = device or features.device, variants[0], group
    if not schedule.images_in_memory:
        features, labels = _resident(features, device), labels.to(device)
        features = pooled(features) if isinstance(first, NoExplanation) and features.shape[2] > 1 else features
    workers = min(torch.get_num_threads(), len(seeds)) if device.type == "cpu" else 1
    if schedule.images_in_memory:
        group = workers = 1
    elif not group:
        group = min(-(-len(seeds) // workers), _largest_group(features, schedule.batch_size, device))
    if isinstance(first, ConceptVector):
        group = group if asked else 1
        workers = min(workers, _concept_vectors_that_fit(group, features.shape[2], features.shape[3], device) // group)

    def work(start: int) -> list[Trained]:
        runs = slice(start, start + group)
        own = Head(head.weight[runs], head.bias[runs])
        return _train_group(features, labels, variants, own, seeds[runs], schedule, start, first_epoch, device)

    parts = []
    for part in side_by_side(work, range(0, len(seeds), group), workers):
        parts.append(part)
        progress(len(part[0].losses))
    return [_joined(own) for own in zip(*parts, strict=True)]


def _resident(features: Tensor, device: torch.device) -> Tensor:
    """The features on the device; BlaError if they do not fit."""
    try:
        return features.to(device)
    except torch.OutOfMemoryError as error:
        raise BlaError(
            f"the training features, {features.nbytes / 1e9:.1f} GB, do not fit on {device}; set training.images_in_memory, "
            "and so many images at a time are read from the file"
        ) from error


def _joined(parts: Sequence[Trained]) -> Trained:
    """The runs of all groups as one."""
    if len(parts) == 1:
        return parts[0]
    head = Head(torch.cat([p.head.weight for p in parts]), torch.cat([p.head.bias for p in parts]))
    modules, module = [p.module for p in parts if p.module], None
    if modules:
        concepts, concept = [m.concept for m in modules if m.concept], None
        if concepts:
            weight, bias = torch.cat([c.weight for c in concepts]), torch.cat([c.bias for c in concepts])
            concept = Concept(weight, bias, concepts[0].rectified)
        module = Module(torch.cat([m.weight for m in modules]), torch.cat([m.bias for m in modules]), concept)
    return Trained(head, module, torch.cat([p.losses for p in parts]))


def _concept_vectors_that_fit(runs: int, cells: int, channels: int, device: torch.device) -> int:
    """How many fit: weights, their gradient, and Adam's two moments. Raises BlaError if that is less than so many."""
    weights = channels * (cells * channels + 1)
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
    else:
        import psutil  # type: ignore[import-untyped]

        free = psutil.virtual_memory().available
    if (fit := free // (4 * 4 * weights)) < runs:
        raise BlaError(
            f"a concept vector of {cells} cells of {channels} channels has {weights / 1e6:.1f} million weights; to train "
            f"{runs} at once takes {16 * runs * weights / 1e9:.2f} GB, but {free / 1e9:.2f} GB are free on {device}"
        )
    return fit


def _largest_group(features: Tensor, batch_size: int, device: torch.device) -> int:
    """How many runs to train at once, by the single-precision features of one step.

    On a CPU as many as keep them within 16 MiB: all 20 of a 7x7x96 map, 2 of 7x7x1280. On a GPU as many as leave
    three quarters of its free memory to what is computed from them.
    """
    limit = 2**24 if device.type == "cpu" else torch.cuda.mem_get_info(device)[0] // 4
    return max(1, limit // (4 * batch_size * features[0, 0].numel()))


DRAWN_AT_ONCE = 16
"""Batches whose random numbers are drawn by one call for each run: single ones would keep a GPU waiting."""


def _train_group(
    features: Tensor,
    labels: Tensor,
    variants: Sequence[Variant],
    start: Head,
    seeds: Sequence[int],
    schedule: Schedule,
    first_run: int,
    first_epoch: int,
    device: torch.device,
) -> list[Trained]:
    """R runs of S variants; within, tensors have the leading dimensions `[R, S]`."""
    (draws, images, cells, channels), runs, first = features.shape, len(seeds), variants[0]
    cells = 1 if isinstance(first, NoExplanation) else cells
    weight, bias = (torch.stack([t] * len(variants), dim=1).to(device) for t in (start.weight, start.bias))
    u = b = concept = None
    if not isinstance(first, NoExplanation):
        module = initial_module(first, cells, channels, generators_of(seeds))
        u, b = (torch.stack([t] * len(variants), dim=1).to(device) for t in (module.weight, module.bias))
        concept = module.moved(lambda t: t.to(device)).concept

    frozen = [v.head == "frozen" for v in variants]
    parameters = [] if all(frozen) else [weight, bias]
    parameters += [] if u is None or b is None else [u, b]
    parameters += [concept.weight, concept.bias] if concept else []
    for parameter in parameters:
        parameter.requires_grad_(True)
    adam = Adam(parameters, schedule.learning_rate, schedule.adam_epsilon)
    explain = _explanations(variants, device)
    still = torch.tensor(frozen, device=device)[:, None] if len(set(frozen)) > 1 else None

    # One pair of buffers for all batches: fresh ones would cost more than the arithmetic.
    largest = runs * min(schedule.batch_size, images)
    dtype = features.dtype if features.shape[2] == cells else torch.float32  # what `pooled` gives
    gathered = torch.empty(largest, cells, channels, dtype=dtype, device=device)
    converted = torch.empty(largest, cells, channels, device=device)
    total = torch.zeros(runs, len(variants), device=device)

    def work(stored: Tensor, rows: Tensor, y: Tensor, kept: Tensor | None, noise: Tensor | None) -> None:
        """One batch: images `rows` `[R, B]` of those stored, with their labels, dropout `[R, B, C]` and noise."""
        count = slice(rows.numel())
        torch.index_select(stored, 0, rows.flatten(), out=gathered[count])
        x = converted[count].copy_(gathered[count]).view(*rows.shape, cells, channels)  # [R, B, n, C]
        if u is None or b is None:
            v = x.transpose(1, 2)  # [R, 1, B, C]
        else:
            scores = torch.einsum("rbnc,rsc->rsbn", x, u) + b[..., None, None]
            if concept:
                scores = scores + concept(x, u[:, 0])[:, None]
            v = torch.einsum("rsbn,rbnc->rsbc", explain(scores, noise), x)
        if kept is not None:
            v = v * kept[:, None] / (1 - schedule.dropout)
        w, c = (weight, bias) if still is None else (_held(weight, still[..., None]), _held(bias, still))
        said = torch.einsum("rsbc,rskc->rsbk", v, w) + c[:, :, None]
        targets = y[:, None].expand(said.shape[:3])
        loss = cross_entropy(said.flatten(0, 2), targets.flatten(), reduction="none").view_as(targets)
        adam.minimise(loss.mean(dim=2).sum())  # runs share no parameter: the sum keeps their gradients apart
        total.add_(loss.detach().sum(dim=2))

    losses = torch.zeros(runs, len(variants), schedule.epochs, device=device)
    # A stream of numbers each, so that neither the variant nor how much is drawn at once changes the others.
    orders = generators_of([derive_seed(seed, "order") for seed in seeds])
    dropouts, noises = (
        generators_of([derive_seed(seed, what) for seed in seeds], device) for what in ("dropout", "noise")
    )
    shapes = {noise_shape(v, cells) for v in variants if not isinstance(v, NoExplanation)} - {None}
    (shape,) = shapes or {None}  # of noise: one, so that all draw the same
    limit, size = schedule.images_in_memory, schedule.batch_size
    step = Replayed(work, device)
    for epoch in range(schedule.epochs):
        drawn = (torch.arange(first_run, first_run + runs) + first_epoch + epoch) % draws
        for pool in pools(features, labels, drawn, orders, limit, size, device):
            stored = pooled(pool.features) if pool.features.shape[2] > cells else pool.features
            all_rows = (pool.draw * stored.shape[1])[:, None] + pool.orders
            all_labels, stored = pool.labels[pool.orders], stored.flatten(0, 1)
            blocks = (t.split(DRAWN_AT_ONCE * size, dim=1) for t in (all_rows, all_labels))
            for rows, y in zip(*blocks, strict=True):
                count = rows.shape[1]
                kept = draw((channels,), count, dropouts) >= schedule.dropout if schedule.dropout else None
                noise = draw(shape, count, noises) if shape else None
                for at in range(0, count, size):
                    part = slice(at, at + size)
                    own = (None if t is None else t[:, part] for t in (kept, noise))
                    step(stored, rows[:, part], y[:, part], *own)
        losses[:, :, epoch] = total / images
        total.zero_()
        if not losses[:, :, epoch].isfinite().all():
            first_bad = int(losses[:, :, epoch].isfinite().all(dim=0).logical_not().nonzero()[0])
            whose = f" of {variants[first_bad]}" if len(variants) > 1 else ""
            raise BlaError(f"the training loss{whose} is not finite in epoch {epoch + 1}; lower training.learning_rate")

    results = []
    for s, variant in enumerate(variants):
        head = Head(*(t[:, s].detach().cpu() for t in (weight, bias)))
        if variant.head in ("frozen", "trained_reloaded"):
            head = Head(start.weight.detach().cpu().clone(), start.bias.detach().cpu().clone())
        found = None if u is None or b is None else Module(u[:, s].detach(), b[:, s].detach(), concept)
        results.append(Trained(head, found and found.moved(lambda t: t.detach().cpu()), losses[:, s].cpu()))
    return results


def _held(parameter: Tensor, still: Tensor) -> Tensor:
    """The parameter; where it is still, without a gradient, of which Adam makes no step."""
    return torch.where(still, parameter.detach(), parameter)


def _explanations(variants: Sequence[Variant], device: torch.device) -> Callable[[Tensor, Tensor | None], Tensor]:
    """The function from scores `[R, S, B, n]`, and noise `[R, B, k, n]` if any, to the S variants' pooling weights.

    Neighbours that differ in temperature and threshold alone are computed together.
    """
    kinds = []
    for _, group in groupby(variants, lambda v: v.threshold_rule if isinstance(v, BoundedLogits) else v):
        alike = list(group)
        numbers = [(v.temperature, v.threshold_factor) for v in alike if isinstance(v, BoundedLogits)]
        settings = torch.tensor(numbers, device=device)[..., None, None].unbind(1) if len(numbers) > 1 else None
        kinds.append((alike[0], len(alike), settings))

    def explain(scores: Tensor, noise: Tensor | None) -> Tensor:
        found = []
        parts = scores.split([count for _, count, _ in kinds], dim=1)
        for (variant, _, settings), part in zip(kinds, parts, strict=True):
            assert not isinstance(variant, NoExplanation)
            logits = logits_of(variant, part)
            if settings and isinstance(variant, BoundedLogits):
                temperature, factor = settings
                found.append(threshold(soft_weights(logits, temperature), factor, variant.threshold_rule))
            else:
                own = noise[:, None] if noise is not None and isinstance(variant, L2XF) else None
                found.append(soft_explanation(variant, logits, own))
        return found[0] if len(found) == 1 else torch.cat(found, dim=1)

    return explain
