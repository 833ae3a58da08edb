"""Training of heads and explanation modules on cached features, many runs at once.

Every parameter, generator and result has a leading run dimension R. Each run has its own generators for shuffling,
dropout and Gumbel noise, so its result does not depend on the other runs. Runs train in groups, as one batched product.
On a GPU all runs are one group, and each step is replayed as a CUDA graph. On a CPU a group is as many runs as fit the
cache, with one group per thread, because such small operations gain little from several threads. Variants with equal
seeds can train on the same batches (`train_sweep`).

    head = initial_head(seeds, channels=1280, classes=20)
    trained = train(features[None], labels, NoExplanation(explanation="none"), head, seeds, schedule)     # BL
    trained = train(features[None], labels, bla_t, trained.head, seeds, schedule)             # BLA-T, from BL's heads
    result = evaluate(test_features, test_labels, bla_t, trained, seeds)

Source: Baumhauer et al. 2021, section 4.2; optimiser and initialisation as in the authors' code (Keras).
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from bla.base.errors import BlaError
from bla.base.specs import L2XF, ConceptVector, NoExplanation, Schedule, Variant
from bla.method.finite import refuse_not_finite
from bla.method.group import Batches, Parameters, Step, noise_of
from bla.method.modules import Concept, Head, Module, Trained, pooled
from bla.runtime.cuda_graphs import Replayed
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
    """Train one run per seed, starting from its head; the arguments are not modified.

    `features` `[D, N, n, C]` are D draws of the same N images; run r reads draw (r + epoch) mod D. They may be half
    precision, and memory maps if `schedule.images_in_memory` is set; batches are computed in single precision on
    `device` (default: that of the features). `labels` are `[N]` or multi-hot `[N, K]`. Epochs are counted from
    `first_epoch`, so that a module starts with the draws that follow those of its head. `group` is the number of runs
    that train together (default: by device; one for concept vectors and streamed features). `progress` is called after
    each group with its number of runs. Raises BlaError if a loss is not finite, if L2X-F chooses more cells than there
    are, or if a concept vector does not fit into memory.
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
    """Train several variants together, with the same results as `train`; run r of every variant has the same seed.

    So run r has the same initial weights, order of images and dropout in all variants, and batches are read once for
    all of them. If there are several variants, all must have modules, and none a concept vector.
    """
    assert len(variants) == 1 or not any(isinstance(v, NoExplanation | ConceptVector) for v in variants)
    device, first, requested = device or features.device, variants[0], group
    for variant in variants:
        if isinstance(variant, L2XF) and variant.k > features.shape[2]:
            raise BlaError(
                f"{variant.k} cells cannot be chosen from {features.shape[2]}; lower k, or enlarge the images"
            )
    if not schedule.images_in_memory:
        features, labels = resident(features, device), labels.to(device)
        features = pooled(features) if isinstance(first, NoExplanation) and features.shape[2] > 1 else features
    workers = min(torch.get_num_threads(), len(seeds)) if device.type == "cpu" else 1
    if schedule.images_in_memory:
        group = workers = 1
    elif not group:
        group = min(-(-len(seeds) // workers), _largest_group(features, schedule.batch_size, device))
    if isinstance(first, ConceptVector):
        group = group if requested else 1
        workers = min(workers, _concept_vectors_that_fit(group, features.shape[2], features.shape[3], device) // group)

    def work(start: int) -> list[Trained]:
        runs = slice(start, start + group)
        start_heads = Head(head.weight[runs], head.bias[runs])
        return _train_group(features, labels, variants, start_heads, seeds[runs], schedule, start, first_epoch, device)

    parts = []
    for part in side_by_side(work, range(0, len(seeds), group), workers):
        parts.append(part)
        progress(len(part[0].losses))
    return [_joined(of_variant) for of_variant in zip(*parts, strict=True)]


def resident(features: Tensor, device: torch.device) -> Tensor:
    """The features on the device; BlaError if they do not fit."""
    try:
        return features.to(device)
    except torch.OutOfMemoryError as error:
        raise BlaError(
            f"the training features, {features.nbytes / 1e9:.1f} GB, do not fit on {device}; set training.images_in_memory, "
            "to read that many images at a time from the file"
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
    """How many concept vectors fit into memory, with gradients and Adam's moments; BlaError if fewer than `runs`."""
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
    """How many runs to train at once, by the size of one step's single-precision features.

    On a CPU they may fill 16 MiB: all 20 runs of a 7x7x96 map, 2 of 7x7x1280. On a GPU they may fill a quarter of its
    free memory, since the computations need the rest.
    """
    limit = 2**24 if device.type == "cpu" else torch.cuda.mem_get_info(device)[0] // 4
    return max(1, limit // (4 * batch_size * features[0, 0].numel()))


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
    """Train R runs of S variants together."""
    (draws, images, cells, channels), runs = features.shape, len(seeds)
    cells = 1 if isinstance(variants[0], NoExplanation) else cells
    dtype = features.dtype if features.shape[2] == cells else torch.float32  # the type of `pooled`
    parameters = Parameters.initial(variants, start, seeds, cells, channels, device)
    step = Step(parameters, variants, schedule, min(schedule.batch_size, images), cells, dtype)
    replayed = Replayed(step, device)
    batches = Batches(features, labels, cells, seeds, schedule, noise_of(variants, cells), device)
    losses = torch.zeros(runs, len(variants), schedule.epochs, device=device)
    for epoch in range(schedule.epochs):
        for batch in batches.epoch((torch.arange(first_run, first_run + runs) + first_epoch + epoch) % draws):
            replayed(*batch)
        losses[:, :, epoch] = step.total / images
        step.total.zero_()
        if not (finite := losses[:, :, epoch].isfinite().all(dim=0)).all():
            refuse_not_finite(features, "training images")
            name = f" of {variants[int(finite.logical_not().nonzero()[0])]}" if len(variants) > 1 else ""
            raise BlaError(f"the training loss{name} is not finite in epoch {epoch + 1}; lower training.learning_rate")
    return parameters.results(variants, start, losses)
