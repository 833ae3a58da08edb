"""A small CNN trained whole, with and without bounded logit attention: the paper's comparison on MNIST's 3 and 8.

Three 5x5 convolutions of 8, 16 and 16 filters with ReLU, the first two followed by 2x2 max-pooling, then a dense unit
with a sigmoid: 28x28 pixels become a 7x7 map of 16 channels. An explanation module weighs the 49 cells as on a frozen
backbone, but here everything trains together.

    network = train(images, labels, "flat", variant, seeds, schedule)       # variant None: the baseline
    result = evaluate(test_images, test_labels, "flat", variant, network)

The paper does not say how weights and dense unit are combined. Here cell i is multiplied by n w_i, so that equal
weights change nothing; then the cells are averaged to 16 numbers ("mean"), or all 784 are used ("flat").

Source: Baumhauer et al. 2021, section 4.1; initialisation and optimiser as in Keras.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, conv2d, max_pool2d

from bla.base.errors import BlaError
from bla.base.specs import BoundedLogits, Optimiser
from bla.method.equations import hard_explanation, hard_weights, logits_of, soft_explanation
from bla.method.initialisation import glorot
from bla.method.modules import EVALUATION_CHUNK, Evaluation, Explanations, Head, Module
from bla.runtime.adam import Adam

Pooling = Literal["mean", "flat"]
FILTERS = (8, 16, 16)
KERNEL = 5
SIDE = 28
GRID = (SIDE // 4, SIDE // 4)
CELLS = GRID[0] * GRID[1]


@dataclass(frozen=True)
class SmallCNN:
    """R networks: `kernels` `[R * F, C, 5, 5]` and `biases` `[R * F]` of each layer, `head` with one class, `module`."""

    kernels: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]
    head: Head
    module: Module | None

    def features(self, images: Tensor) -> Tensor:
        """Maps `[R, B, 49, 16]` of each run's images `[R, B, 28, 28]` in [0, 1]."""
        runs, count = images.shape[:2]
        x = images.transpose(0, 1)  # a run is a group of channels
        for layer, (kernel, bias) in enumerate(zip(self.kernels, self.biases, strict=True)):
            x = conv2d(x, kernel, bias, padding=KERNEL // 2, groups=runs).relu()
            x = max_pool2d(x, 2) if layer < 2 else x
        return x.view(count, runs, FILTERS[-1], CELLS).permute(1, 0, 3, 2)

    def answer(self, features: Tensor, weights: Tensor | None, pooling: Pooling) -> Tensor:
        """The unit's logits `[R, B]`, with cells weighted by `[R, B, n]`, or equally if there are no weights."""
        if weights is not None:
            features = features * (features.shape[2] * weights)[..., None]
        return self.head(features.mean(dim=2) if pooling == "mean" else features.flatten(2))[..., 0]

    def parameters(self) -> list[Tensor]:
        """All that trains."""
        module = [self.module.weight, self.module.bias] if self.module else []
        return [*self.kernels, *self.biases, self.head.weight, self.head.bias, *module]

    def moved(self, move: Callable[[Tensor], Tensor]) -> "SmallCNN":
        """The same networks with every tensor passed through `move`."""
        module = Module(move(self.module.weight), move(self.module.bias)) if self.module else None
        head = Head(move(self.head.weight), move(self.head.bias))
        return SmallCNN(tuple(map(move, self.kernels)), tuple(map(move, self.biases)), head, module)


def initial(generators: Sequence[torch.Generator], pooling: Pooling, with_module: bool) -> SmallCNN:
    """Untrained networks: Glorot-uniform weights, biases 0, those of run r from generator r.

    The module's weights are drawn last, so that a run starts from the same weights with and without a module.
    """
    runs, channels, kernels = len(generators), 1, []
    for filters in FILTERS:
        kernels.append(
            glorot((filters, channels, KERNEL, KERNEL), channels * KERNEL**2, filters * KERNEL**2, generators)
        )
        channels = filters
    inputs = channels if pooling == "mean" else channels * CELLS
    head = Head(glorot((1, inputs), inputs, 1, generators), torch.zeros(runs, 1))
    module = Module(glorot((channels,), channels, 1, generators), torch.zeros(runs)) if with_module else None
    biases = tuple(torch.zeros(runs * filters) for filters in FILTERS)
    return SmallCNN(tuple(kernel.flatten(0, 1) for kernel in kernels), biases, head, module)


def train(
    images: Tensor,
    labels: Tensor,
    pooling: Pooling,
    variant: BoundedLogits | None,
    seeds: Sequence[int],
    schedule: Optimiser,
) -> SmallCNN:
    """Train one network for each seed on images `[N, 28, 28]` in [0, 1] with labels 0 and 1; all seeds at once.

    Raises BlaError if a loss is not finite.
    """
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    network = initial(generators, pooling, variant is not None).moved(lambda t: t.to(images.device).requires_grad_())
    adam = Adam(network.parameters(), schedule.learning_rate, schedule.adam_epsilon)
    for epoch in range(schedule.epochs):
        orders = torch.stack([torch.randperm(len(images), generator=g) for g in generators]).to(images.device)
        for batch in orders.split(schedule.batch_size, dim=1):
            features = network.features(images[batch])
            weights = None
            if variant is not None:
                assert network.module is not None
                weights = soft_explanation(variant, logits_of(variant, network.module(features)), None)
            answer = network.answer(features, weights, pooling)
            loss = binary_cross_entropy_with_logits(answer, labels[batch].float(), reduction="none").mean(dim=1)
            adam.minimise(loss.sum())  # runs share no parameters, so the gradients of the sum are those of each run
        if not loss.isfinite().all():
            raise BlaError(f"the training loss is not finite in epoch {epoch + 1}; lower the learning rate")
    return network.moved(lambda t: t.detach().cpu())


@torch.no_grad()
def evaluate(
    images: Tensor, labels: Tensor, pooling: Pooling, variant: BoundedLogits | None, network: SmallCNN
) -> Evaluation:
    """Evaluate every run on the images `[N, 28, 28]`, with hard and soft explanations, or with none for the baseline."""
    network = network.moved(lambda t: t.to(images.device))
    runs, parts = len(network.head.weight), []
    for x, y in zip(images.split(EVALUATION_CHUNK), labels.split(EVALUATION_CHUNK), strict=True):
        features = network.features(x.expand(runs, *x.shape))
        targets = y.float().expand(runs, -1)
        if variant is None:
            results = _score(network.answer(features, None, pooling), targets)
        else:
            assert network.module is not None
            logits = logits_of(variant, network.module(features))
            hard, soft = hard_explanation(variant, logits), soft_explanation(variant, logits, None)
            by_hard, by_soft = (
                _score(network.answer(features, w, pooling), targets) for w in (hard_weights(variant, hard), soft)
            )
            results = (*by_hard, logits, soft, hard, *by_soft)
        parts.append([value.cpu() for value in results])
    correct, loss, *explained = (torch.cat(values, dim=1) for values in zip(*parts, strict=True))
    return Evaluation(correct, loss, Explanations(*explained) if explained else None)


def _score(answer: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
    """Correctness and cross-entropy of the predictions, `[R, B]` each."""
    return (answer > 0) == (targets > 0.5), binary_cross_entropy_with_logits(answer, targets, reduction="none")
