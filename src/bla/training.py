"""Training of heads and explanation modules on cached features, many runs at once.

Every parameter, generator and result has a leading run dimension R. A run draws its shuffles, dropout and Gumbel noise
from its own generator, so it is the same run in any group. Runs of one group train together as one batched product. A GPU
takes all of them; a CPU as many as its cache holds, one group in each thread: operations this small gain little from
threads of their own.

    head = initial_head(seeds, channels=1280, classes=20)
    trained = train(features[None], labels, NoExplanation("none"), head, seeds, schedule)     # BL
    trained = train(features[None], labels, bla_t, trained.head, seeds, schedule)             # BLA-T, from BL's heads
    result = evaluate(test_features, test_labels, bla_t, trained, seeds)

Source: Baumhauer et al. 2021, section 4.2; optimiser and initialisation as in the authors' code (Keras).
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from bla.adam import Adam
from bla.errors import BlaError
from bla.selection import hard_explanation, hard_weights, logits_of, noise_shape, soft_explanation
from bla.specs import ConceptVector, Explaining, NoExplanation, Schedule, Variant
from bla.streaming import pools


@dataclass(frozen=True)
class Head:
    """R linear classifiers: `weight` `[R, K, C]`, `bias` `[R, K]`."""

    weight: Tensor
    bias: Tensor

    def __call__(self, pooled: Tensor) -> Tensor:
        """Class logits `[R, B, K]` of pooled features `[R, B, C]`."""
        return torch.einsum("rbc,rkc->rbk", pooled, self.weight) + self.bias[:, None]


@dataclass(frozen=True)
class Concept:
    """R dense layers from all cells of an image to its concept vector g: `weight` W `[R, C, n * C]`, `bias` `[R, C]`."""

    weight: Tensor
    bias: Tensor
    rectified: bool

    def __call__(self, features: Tensor, u: Tensor) -> Tensor:
        """u.g `[R, B, 1]` of features `[R, B, n, C]` or `[B, n, C]`, and u `[R, C]`."""
        image, u = features.flatten(-2), u[..., None]
        if self.rectified:
            return (image @ self.weight.mT + self.bias[:, None]).relu() @ u
        return image @ (self.weight.mT @ u) + self.bias[:, None] @ u  # not u.(W f), which takes C times as long


@dataclass(frozen=True)
class Module:
    """R explanation modules, each a 1x1 convolution to one score per cell: `weight` u `[R, C]`, `bias` `[R]`.

    With a concept vector g an image's cells all score u.g more, for u.(g + f_i) = u.f_i + u.g.
    """

    weight: Tensor
    bias: Tensor
    concept: Concept | None = None

    def __call__(self, features: Tensor) -> Tensor:
        """Scores `[R, B, n]` of each run's features `[R, B, n, C]`, or of the same features `[B, n, C]` for every run."""
        if features.ndim == 3:
            scores = torch.einsum("bnc,rc->rbn", features, self.weight) + self.bias[:, None, None]
        else:
            scores = torch.matmul(features, self.weight[:, None, :, None])[..., 0] + self.bias[:, None, None]
        if self.concept is None:
            return scores
        return scores + self.concept(features, self.weight)

    def parameters(self) -> list[Tensor]:
        """All that trains."""
        return [self.weight, self.bias, *([self.concept.weight, self.concept.bias] if self.concept else [])]

    def moved(self, move: Callable[[Tensor], Tensor]) -> "Module":
        """The same modules with every tensor passed through `move`."""
        own = self.concept
        concept = Concept(move(own.weight), move(own.bias), own.rectified) if own else None
        return Module(move(self.weight), move(self.bias), concept)


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
    chunks = features.flatten(0, -3).split(128)
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
    device = device or features.device
    if not schedule.images_in_memory:
        features, labels = _resident(features, device), labels.to(device)
        features = pooled(features) if isinstance(variant, NoExplanation) and features.shape[2] > 1 else features
    one_by_one = schedule.images_in_memory or (isinstance(variant, ConceptVector) and not group)
    workers = 1 if one_by_one or device.type == "cuda" else min(torch.get_num_threads(), len(seeds))
    if one_by_one:
        group = 1
    elif not group:
        group = -(-len(seeds) // workers)
        group = group if device.type == "cuda" else min(group, _cpu_group(features, schedule.batch_size))
    if isinstance(variant, ConceptVector):
        _check_memory(group * workers, features.shape[2], features.shape[3], device)

    def work(start: int) -> Trained:
        runs = slice(start, start + group)
        own = Head(head.weight[runs], head.bias[runs])
        return _train_group(features, labels, variant, own, seeds[runs], schedule, start, first_epoch, device)

    parts = []
    with ThreadPoolExecutor(workers) as pool, _threads_of(1 if workers > 1 else None):
        try:
            for part in pool.map(work, range(0, len(seeds), group)):
                parts.append(part)
                progress(len(part.losses))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    if len(parts) == 1:
        return parts[0]
    head = Head(torch.cat([p.head.weight for p in parts]), torch.cat([p.head.bias for p in parts]))
    return Trained(head, _joined([p.module for p in parts if p.module]), torch.cat([p.losses for p in parts]))


@contextmanager
def _threads_of(count: int | None) -> Iterator[None]:
    """Have each operation take so many threads in the block, or as many as it does."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _resident(features: Tensor, device: torch.device) -> Tensor:
    """The features on the device; BlaError if they do not fit."""
    try:
        return features.to(device)
    except torch.OutOfMemoryError as error:
        raise BlaError(
            f"the training features, {features.nbytes / 1e9:.1f} GB, do not fit on {device}; set training.images_in_memory, "
            "and so many images at a time are read from the file"
        ) from error


def _joined(modules: Sequence[Module]) -> Module | None:
    """The modules of all groups as one."""
    if not modules:
        return None
    concepts = [module.concept for module in modules if module.concept]
    concept = None
    if concepts:
        weight, bias = torch.cat([c.weight for c in concepts]), torch.cat([c.bias for c in concepts])
        concept = Concept(weight, bias, concepts[0].rectified)
    return Module(torch.cat([m.weight for m in modules]), torch.cat([m.bias for m in modules]), concept)


def _check_memory(runs: int, cells: int, channels: int, device: torch.device) -> None:
    """Raise BlaError if so many concept vectors do not fit: weights, their gradient, and Adam's two moments."""
    weights = runs * channels * (cells * channels + 1)
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
    else:
        import psutil  # type: ignore[import-untyped]

        free = psutil.virtual_memory().available
    if 4 * 4 * weights > free:
        raise BlaError(
            f"a concept vector of {cells} cells of {channels} channels has {weights / runs / 1e6:.1f} million weights; to "
            f"train {runs} at once takes {16 * weights / 1e9:.2f} GB, but {free / 1e9:.2f} GB are free on {device}"
        )


def _cpu_group(features: Tensor, batch_size: int) -> int:
    """As many runs as keep the single-precision features of one step within 16 MiB: all 20 of a 7x7x96 map, 2 of 7x7x1280."""
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
    device: torch.device,
) -> Trained:
    (draws, images, cells, channels), runs = features.shape, len(seeds)
    cells = 1 if isinstance(variant, NoExplanation) else cells
    generators = _generators(seeds)
    start = head
    head = Head(head.weight.to(device).clone(), head.bias.to(device).clone())
    module = None
    if not isinstance(variant, NoExplanation):
        module = _initial_module(variant, cells, channels, generators).moved(lambda t: t.to(device))

    parameters = [] if variant.head == "frozen" else [head.weight, head.bias]
    parameters += module.parameters() if module else []
    for parameter in parameters:
        parameter.requires_grad_(True)
    adam = Adam(parameters, schedule.learning_rate, schedule.adam_epsilon)

    # One pair of buffers for all batches: fresh ones would cost more than the arithmetic.
    largest = runs * min(schedule.batch_size, images)
    dtype = features.dtype if features.shape[2] == cells else torch.float32  # what `pooled` gives
    gathered = torch.empty(largest, cells, channels, dtype=dtype, device=device)
    converted = torch.empty(largest, cells, channels, device=device)

    losses = torch.zeros(runs, schedule.epochs, device=device)
    for epoch in range(schedule.epochs):
        draw = (torch.arange(first_run, first_run + runs) + first_epoch + epoch) % draws
        limit = schedule.images_in_memory
        for pool in pools(features, labels, draw, generators, limit, schedule.batch_size, device):
            stored = pooled(pool.features) if pool.features.shape[2] > cells else pool.features
            start_of_draw = pool.draw * stored.shape[1]
            stored = stored.flatten(0, 1)
            for batch in pool.orders.split(schedule.batch_size, dim=1):
                rows = slice(batch.numel())
                torch.index_select(stored, 0, (start_of_draw[:, None] + batch).flatten(), out=gathered[rows])
                x = converted[rows].copy_(gathered[rows]).view(*batch.shape, cells, channels)  # [R, B, n, C]
                y = pool.labels[batch]
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
                adam.minimise(loss.mean(dim=1).sum())  # runs share no parameter: the sum keeps their gradients apart
                losses[:, epoch] += loss.detach().sum(dim=1) / images
        if not losses[:, epoch].isfinite().all():
            raise BlaError(f"the training loss is not finite in epoch {epoch + 1}; lower training.learning_rate")

    if variant.head == "trained_reloaded":
        head = start
    head = Head(head.weight.detach().cpu(), head.bias.detach().cpu())
    module = module.moved(lambda t: t.detach().cpu()) if module else None
    return Trained(head, module, losses.cpu())


def _initial_module(variant: Explaining, cells: int, channels: int, generators: Sequence[torch.Generator]) -> Module:
    """Untrained modules: Glorot-uniform weights, biases 0; a concept vector's weights are drawn after the module's."""
    runs = len(generators)
    weight, concept = _glorot((channels,), channels, 1, generators), None
    if isinstance(variant, ConceptVector):
        dense = _glorot((channels, cells * channels), cells * channels, channels, generators)
        concept = Concept(dense, torch.zeros(runs, channels), variant.activation == "relu")
    return Module(weight, torch.zeros(runs), concept)


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
def evaluate(
    features: Tensor,
    labels: Tensor,
    variant: Variant,
    trained: Trained,
    seeds: Sequence[int],
    device: torch.device | None = None,
) -> Evaluation:
    """Evaluate every run on the clean features of images `[N, n, C]`, without dropout, with hard and soft explanations.

    `seeds`, one for each run, fix the samples of L2X-F's soft explanations: they stay random in evaluation (code). Computed
    chunk by chunk on `device` (default: that of the features).
    """
    device = device or features.device
    head = Head(trained.head.weight.to(device), trained.head.bias.to(device))
    parts = zip(features.split(EVALUATION_CHUNK), labels.split(EVALUATION_CHUNK), strict=True)
    if isinstance(variant, NoExplanation) or trained.module is None:
        scored = [
            [value.cpu() for value in _score(head, pooled(x.to(device))[None, :, 0], y.to(device))] for x, y in parts
        ]
        correct, loss = (torch.cat(values, dim=1) for values in zip(*scored, strict=True))
        return Evaluation(correct, loss)
    module = trained.module.moved(lambda t: t.to(device))
    chunks = []
    generators = _generators(seeds)
    for x, y in parts:
        noise = _noise(variant, x.shape[1], len(x), generators, device)
        chunks.append(
            [value.cpu() for value in _explain(x.to(device).float(), y.to(device), variant, head, module, noise)]
        )
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
    by_hard, by_soft = (
        _score(head, torch.einsum("rbn,bnc->rbc", w, x), y) for w in (hard_weights(variant, hard), soft)
    )
    return *by_hard, logits, soft, hard, *by_soft


def _score(head: Head, v: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Whether the prediction is right, and its cross-entropy, `[R, B]` each, for pooled features `[R, B, C]`."""
    class_logits = head(v.expand(len(head.weight), -1, -1))
    targets = labels.expand(len(head.weight), -1)
    loss = cross_entropy(class_logits.flatten(0, 1), targets.flatten(), reduction="none").view_as(targets)
    return class_logits.argmax(dim=2) == targets, loss
