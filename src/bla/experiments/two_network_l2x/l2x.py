"""Two-network L2X: an explainer chooses k patches of an image, and a second network sees only these.

Both use the same frozen backbone: the explainer is a 1x1 convolution with a logit per patch, the second network is
average pooling and a dense head. They train together, so that the second network's loss trains the explainer. Selection
has no gradient, so training uses a relaxed sample, the soft explanation.

    trained = train(extractor, images, features, labels, rows, reading, k, schedule, seed, run)
    result = evaluate(extractor, images, features, labels, reading, k, trained, seed, batch_size)
    result.correct["soft"].double().mean(), result.correct["hard"].double().mean()

The explainer sees the whole image, whose features are cached. A step costs a forward pass of masked images and a
backward pass, which carries the gradient through the backbone to the mask.

Sources: Chen et al. 2018, "Learning to explain" (the method); Baumhauer et al. 2021, section 4.1 (on a deep backbone).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from bla.base.errors import BlaError
from bla.base.specs import L2XReading, Optimiser
from bla.method.equations import gumbel, l2x_weights, largest_cells
from bla.method.finite import refuse_not_finite
from bla.method.initialisation import initial_head
from bla.method.modules import EVALUATION_CHUNK, Head, Module
from bla.networks.patches import Grid, patch_of_pixel
from bla.runtime.adam import Adam
from bla.runtime.seeds import derive_seed

if TYPE_CHECKING:
    from bla.networks.backbones import Extractor

MASKED = ("soft", "hard_dimmed", "hard", "random")
"""The ways of showing an image to the second network; see `Result`."""


@dataclass(frozen=True)
class Trained:
    """One run: the explainer's 1x1 convolution and the second network's head, R = 1, on the device."""

    module: Module
    head: Head


@dataclass(frozen=True)
class Result:
    """Results of one run on M images.

    `correct` bool `[M]` by what the second network sees: `soft`, the soft explanation, sampled as in training; `hard`,
    the k patches with the largest logits; `hard_dimmed`, the same patches with the brightness of the soft explanation
    (mean: `chosen_brightness`); `random`, k random patches; `full`, the whole image. The masks are `soft` in [0, 1],
    and `hard` and `random` bool, `[M, n]`.
    """

    correct: Mapping[str, Tensor]
    soft: Tensor
    hard: Tensor
    random: Tensor
    chosen_brightness: float


def sample(reading: L2XReading, k: int, logits: Tensor, uniform: Tensor) -> Tensor:
    """The training mask `[..., n]`, the brightness of each patch, from logits `[..., n]` and uniform numbers `[..., k, n]`.

    With `straight_through` the mask is exactly the k largest patches of the sample, with the sample's gradient (Bengio
    et al. 2013).
    """
    weights = l2x_weights(logits, reading.temperature, gumbel(uniform).movedim(-2, 0))
    if reading.straight_through:
        return largest_cells(weights, k) + (weights - weights.detach())
    return weights


def shown(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """A mask of patches `[..., h, w]`, repeated over the pixels of each patch: `[..., H, W]`."""
    rows, columns = (patch_of_pixel(*sides).to(mask.device) for sides in zip(size, mask.shape[-2:], strict=True))
    large: Tensor = mask.index_select(-2, rows).index_select(-1, columns)
    return large


def masked(extractor: "Extractor", images: Tensor, mask: Tensor, reading: L2XReading) -> Tensor:
    """Images `[B, H, W, 3]` in [0, 255] under a mask `[B, h, w]`, as the second network sees them: float `[B, H, W, 3]`.

    Hidden pixels are black, or the colour that the backbone's normalisation maps to 0.
    """
    part = shown(mask.float(), (images.shape[1], images.shape[2]))[..., None]
    pixels = images * part
    return pixels if reading.background == "black" else pixels + (1 - part) * extractor.mean.flatten()


@torch.no_grad()
def grid_of(extractor: "Extractor", images: Tensor, device: torch.device) -> Grid:
    """Rows and columns of the feature map of these images."""
    rows, columns = extractor.feature_map(images[:1].to(device)).shape[2:]
    return rows, columns


def train(
    extractor: "Extractor",
    images: Tensor,
    features: Tensor,
    labels: Tensor,
    rows: Tensor,
    reading: L2XReading,
    k: int,
    schedule: Optimiser,
    seed: int,
    run: int,
) -> Trained:
    """Train the explainer and the head of one run on the images `rows` `[N]`; the extractor is frozen.

    `images` uint8 `[A, H, W, 3]` may be a memory map; `features` `[D, A, n, C]` are D draws of their features: in each
    epoch the run reads draw (run + epoch) mod D; `labels` `[A]`. The device is that of the features. If the features
    have stochastic depth (`Extractor.drop_factors`), the second network's backbone has it too. Runs with the same seed
    have the same initial weights and random numbers under every reading. Raises BlaError unless there are more than k
    patches, or if a loss is not finite.
    """
    device, (draws, _, cells, channels) = features.device, features.shape
    if labels.ndim > 1:
        raise BlaError(
            "its images have several labels, but this L2X needs one per image; remove it from two_network_l2x.datasets"
        )
    if k >= cells:
        raise BlaError(f"{k} patches cannot be chosen from {cells}; lower k")
    generator = torch.Generator().manual_seed(seed)
    first = initial_head([derive_seed(seed, "explainer")], channels, 1)
    module = Module(first.weight[:, 0].to(device).requires_grad_(), first.bias[:, 0].to(device).requires_grad_())
    second = initial_head([derive_seed(seed, "head")], channels, int(labels.max()) + 1)
    head = Head(second.weight.to(device).requires_grad_(), second.bias.to(device).requires_grad_())
    parameters, grid = [module.weight, module.bias, head.weight, head.bias], grid_of(extractor, images, device)
    adam = Adam(parameters, schedule.learning_rate, schedule.adam_epsilon)
    for epoch in range(schedule.epochs):
        draw = (run + epoch) % draws
        for order in torch.randperm(len(rows), generator=generator).split(schedule.batch_size):
            batch = rows[order]
            uniform = torch.rand(len(batch), k, cells, generator=generator).to(device)
            factors = None
            if extractor.drops:
                noise = int(torch.randint(2**62, (), generator=generator))
                factors = extractor.drop_factors(len(batch), noise).to(device)
            logits = module(features[draw, batch.to(device)].float())[0]  # [B, n]
            mask = sample(reading, k, logits, uniform).unflatten(-1, grid)
            pixels = masked(extractor, images[batch].to(device), mask, reading)
            answer = head(extractor(pixels, factors).mean(dim=1)[None])[0]  # [B, K]
            loss = cross_entropy(answer, labels[batch.to(device)])
            adam.minimise(loss)
        if not loss.isfinite():
            refuse_not_finite(features, "training images")
            raise BlaError(f"the training loss is not finite in epoch {epoch + 1}; lower the learning rate")
    module = Module(module.weight.detach(), module.bias.detach())
    return Trained(module, Head(head.weight.detach(), head.bias.detach()))


@torch.no_grad()
def evaluate(
    extractor: "Extractor",
    images: Tensor,
    features: Tensor,
    labels: Tensor,
    reading: L2XReading,
    k: int,
    trained: Trained,
    seed: int,
    batch_size: int,
) -> Result:
    """Evaluate one run on images `[M, H, W, 3]` with clean features `[M, n, C]`, in batches.

    The random numbers of image i depend only on (seed, i), under every reading.
    """
    device, cells = features.device, features.shape[1]
    grid = grid_of(extractor, images, device)
    generators = (torch.Generator().manual_seed(derive_seed(seed, i)) for i in range(len(images)))
    uniform = torch.stack([torch.rand(k + 1, cells, generator=g) for g in generators]).to(device)
    logits = torch.cat([trained.module(part.float())[0] for part in features.split(EVALUATION_CHUNK)])
    soft, hard = sample(reading, k, logits, uniform[:, :k]), largest_cells(logits, k)
    random = largest_cells(uniform[:, k], k)
    brightness = soft[hard].mean()
    masks = dict(zip(MASKED, (soft, soft * hard, hard.float(), random.float()), strict=True))
    answers: dict[str, list[Tensor]] = {name: [] for name in masks}
    for numbers in torch.arange(len(images)).split(batch_size):
        pixels = images[numbers].to(device)
        for name, mask in masks.items():
            seen = extractor(masked(extractor, pixels, mask[numbers.to(device)].unflatten(-1, grid), reading))
            answers[name].append(trained.head(seen.mean(dim=1)[None])[0])
    whole = torch.cat([trained.head(part.float().mean(dim=1)[None])[0] for part in features.split(EVALUATION_CHUNK)])
    if not whole.isfinite().all():
        refuse_not_finite(features[None], "evaluated images")
    correct = {name: torch.cat(parts).argmax(dim=1) == labels for name, parts in answers.items()}
    correct["full"] = whole.argmax(dim=1) == labels
    return Result({n: c.cpu() for n, c in correct.items()}, soft.cpu(), hard.cpu(), random.cpu(), float(brightness))
