"""Shared by L-CAM-Fm and L-CAM-Img: the head, its objective, its training, and its maps.

The head is a 1x1 convolution with bias, one channel per class, on the features of a frozen classifier. The sigmoid of
a class's channel is its mask a, high where the class is seen. Trained on 1.5 CE + 2 A + 0.01 S: the classifier must
still predict its class from what the mask shows, with a small area A = mean (a + 0.0005)^0.3 and smoothness
S = [sum |differences of neighbours|^2 + 0.3 (sum of a^2 over the two border rows and the two border columns)] / 2.

A and S of a batch are means over the images, for the class of each image (`diagonal`); or, as in the authors' code, for
the classes of all images of the batch (`random`): then A is the mean over all B^2 pairs of image and label, but S is
their sum divided by B alone, so that its weight grows with the batch.

Source: Gkartzonika, Gkalelis and Mezaris 2022, section 3, and the code that they released.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Lt
from torch import Tensor
from torch.nn.functional import one_hot

from bla.base.errors import BlaError
from bla.base.specs import FORBID_EXTRA, Count, Epochs, LearningRate
from bla.explainers.interface import CONSTANTS, State, TrainingData
from bla.method.finite import refuse_not_finite
from bla.method.scores import Scores, loss_as
from bla.method.streaming import pools
from bla.networks.classifier import Classifier
from bla.networks.patches import Grid
from bla.runtime.seeds import derive_seed

MOMENTUM, WEIGHT_DECAY = 0.9, 5e-4
"""Of stochastic gradient descent, with Nesterov's momentum (authors' code)."""
PREDICTED_AT_ONCE = 128
"""Images per batch when the classifier predicts the labels."""

Masked = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From features `[B, n, C]`, masks `[M, B, h, w]` and the images' rows `[B]` to class scores `[M, B, K]` of what each mask shows."""
Weight = Annotated[float, Ge(ge=0), Lt(lt=1e6)]


@dataclass(frozen=True, kw_only=True)
class LCamSettings:
    """Weights of the terms of the objective and pairs of image and label (authors' code), and training (ours)."""

    __pydantic_config__: ClassVar = FORBID_EXTRA

    cross_entropy: Weight = 1.5
    area: Weight = 2
    smoothness: Weight = 0.01
    masking: Literal["random", "diagonal"] = "random"
    learning_rate: LearningRate = 0.03
    batch_size: Count = 64
    epochs: Epochs = 5


def area(masks: Tensor) -> Tensor:
    """The area `[...]` of masks `[..., h, w]`, as the objective measures it."""
    return (masks + 0.0005).pow(0.3).mean(dim=(-2, -1))


def smoothness(masks: Tensor) -> Tensor:
    """The roughness `[...]` of masks `[..., h, w]`: squared differences of neighbours, and what lies on the border."""
    inner = masks.diff(dim=-2).square().sum(dim=(-2, -1)) + masks.diff(dim=-1).square().sum(dim=(-2, -1))
    border = masks[..., [0, -1], :].square().sum(dim=(-2, -1)) + masks[..., [0, -1]].square().sum(dim=(-2, -1))
    return (inner + 0.3 * border) / 2


def regularisers(masks: Tensor, labels: Tensor, masking: str) -> tuple[Tensor, Tensor]:
    """A and S of the masks `[B, K, h, w]` of every class for a batch with these labels `[B]`."""
    own = one_hot(labels, masks.shape[1]).to(masks)
    pairs = own if masking == "diagonal" else own.sum(dim=0).expand_as(own)  # how often each image and class is a pair
    return (pairs * area(masks)).sum() / pairs.sum(), (pairs * smoothness(masks)).sum() / len(labels)


@torch.no_grad()
def predictions(classifier: Classifier, data: TrainingData) -> tuple[Tensor, int]:
    """The classes `[R, D, N]` that each run predicts for each draw of the features, on the data's device, of how many classes."""
    assert data.grid is not None
    draws = []
    for features in data.features:
        parts = (as_maps(part.to(data.device).float(), data.grid) for part in features.split(PREDICTED_AT_ONCE))
        scores = [classifier.logits(maps) for maps in parts]
        draws.append(torch.cat([part.argmax(dim=2) for part in scores], dim=1))
    return torch.stack(draws, dim=1), scores[0].shape[2]


def as_maps(features: Tensor, grid: Grid) -> Tensor:
    """Feature maps `[B, C, h, w]` of features `[B, n, C]`."""
    maps: Tensor = features.transpose(1, 2).unflatten(2, grid)
    return maps


class Objective:
    """The objective of one run's head; `masked` classifies what a mask shows."""

    def __init__(self, settings: LCamSettings, scores: Scores, grid: Grid, masked: Masked) -> None:
        self.settings, self.scores, self.grid, self.masked = settings, scores, grid, masked

    def __call__(
        self, heads: Sequence[tuple[Tensor, Tensor] | float], features: Tensor, labels: Tensor, rows: Tensor
    ) -> Tensor:
        """Its values `[M]` with M heads, for a batch of features `[B, n, C]` and labels `[B]`; a number is a constant mask."""
        classes, own = labels.unique(return_inverse=True)  # no pair has another class
        masks = torch.stack([self._masks(head, features, classes) for head in heads])
        shown = masks[:, torch.arange(len(labels), device=masks.device), own]
        values = []
        for logits, of_head in zip(self.masked(features, shown, rows), masks, strict=True):
            loss = loss_as(self.scores, logits, labels).mean()
            spread, roughness = regularisers(of_head, own, self.settings.masking)
            values.append(
                self.settings.cross_entropy * loss + self.settings.area * spread + self.settings.smoothness * roughness
            )
        return torch.stack(values)

    def _masks(self, head: tuple[Tensor, Tensor] | float, features: Tensor, classes: Tensor) -> Tensor:
        """The masks `[B, k, h, w]` of these classes `[k]`."""
        if isinstance(head, tuple):
            weight, bias = head
            logits = features @ weight[classes].T + bias[classes]
            masks: Tensor = logits.sigmoid().transpose(1, 2).unflatten(2, self.grid)
            return masks
        return features.new_full((len(features), len(classes), *self.grid), head)


def initial(classes: int, channels: int, seed: int, device: torch.device) -> list[Tensor]:
    """Weight `[K, C]` and bias `[K]` of an untrained head, uniform within 1 / sqrt(C), as torch initialises a convolution."""
    generator, bound = torch.Generator().manual_seed(seed), channels**-0.5
    values = (torch.empty(*shape).uniform_(-bound, bound, generator=generator) for shape in ((classes, channels), (classes,)))  # fmt: skip
    return [value.to(device).requires_grad_() for value in values]


def step(tensors: list[Tensor], velocities: list[Tensor], gradients: tuple[Tensor, ...], learning_rate: float) -> None:
    """One step of stochastic gradient descent, in place, with Nesterov's momentum and weight decay (as torch.optim.SGD)."""
    with torch.no_grad():
        for tensor, velocity, gradient in zip(tensors, velocities, gradients, strict=True):
            slope = gradient + WEIGHT_DECAY * tensor
            velocity.mul_(MOMENTUM).add_(slope)
            tensor.sub_(learning_rate * (slope + MOMENTUM * velocity))


def train(objective: Objective, data: TrainingData, labels: Tensor, classes: int, seed: int, first_draw: int) -> State:
    """Train one head for K classes on the predicted labels `[D, N]`; its state on the CPU, as of one run.

    Raises BlaError if a loss is not finite.
    """
    settings, (draws, images, _, channels) = objective.settings, data.features.shape
    head = initial(classes, channels, derive_seed(seed, "head"), data.device)
    velocities, order = [torch.zeros_like(t) for t in head], torch.Generator().manual_seed(derive_seed(seed, "order"))
    losses, limit = torch.zeros(1, settings.epochs, device=data.device), data.schedule.images_in_memory
    for epoch in range(settings.epochs):
        draw = torch.tensor([(first_draw + epoch) % draws])
        for pool in pools(data.features, labels[draw[0]], draw, [order], limit, settings.batch_size, data.device):
            for rows in pool.orders[0].split(settings.batch_size):
                features = pool.features[pool.draw[0], rows].float()
                (loss,) = objective([(head[0], head[1])], features, pool.labels[rows], rows)
                step(head, velocities, torch.autograd.grad(loss, head), settings.learning_rate)
                losses[0, epoch] += loss.detach() * len(rows) / images
        if not losses[0, epoch].isfinite():
            refuse_not_finite(data.features, "training images")
            raise BlaError(f"the training loss is not finite in epoch {epoch + 1}; lower learning_rate")
    weight, bias = (tensor.detach()[None].cpu() for tensor in head)
    return {"weight": weight, "bias": bias, "losses": losses.cpu()}


@torch.no_grad()
def held_out(objective: Objective, head: tuple[Tensor, Tensor], data: TrainingData, labels: Tensor) -> Tensor:
    """The objective's value on the first draw of held-out data with predicted labels `[N]`, and with the best constant mask: `[2]`."""
    masks: list[tuple[Tensor, Tensor] | float] = [head, *CONSTANTS]
    total = torch.zeros(len(masks), device=data.device)
    for rows in torch.arange(len(labels), device=data.device).split(objective.settings.batch_size):
        features = data.features[0][rows.to(data.features.device)].to(data.device).float()
        total += objective(masks, features, labels[rows], rows) * len(rows) / len(labels)
    return torch.stack([total[0], total[1:].min()])


@torch.no_grad()
def class_maps(state: State, features: Tensor, targets: Tensor) -> Tensor:
    """Maps `[R, B, h, w]` from feature maps `[B, C, h, w]`: the target class's logits before the sigmoid, scaled to [0, 1].

    `targets` are `[R, B]`. A map that is constant up to rounding is 0 everywhere.
    """
    weight, bias = (
        torch.stack([values[chosen] for values, chosen in zip(state[name], targets, strict=True)])
        for name in ("weight", "bias")
    )  # [R, B, C], [R, B]
    logits = torch.einsum("bchw,rbc->rbhw", features.float(), weight) + bias[..., None, None]
    low, high = logits.amin(dim=(2, 3), keepdim=True), logits.amax(dim=(2, 3), keepdim=True)
    constant = high - low <= 1e-6 * torch.maximum(low.abs(), high.abs())
    return torch.where(constant, 0, (logits - low) / torch.where(constant, 1, high - low))
