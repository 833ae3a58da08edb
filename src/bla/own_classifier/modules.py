"""An explanation module in front of any layers: post hoc BLA where the head is not one linear layer.

The layers after the feature map get a map in which every cell is the weighted mean of the cells. With average pooling and
a linear head this is the paper's pooling; a ConvNeXt's normalisation or VGG's three layers follow unchanged.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from bla.base.errors import BlaError
from bla.explainers.interface import CONSTANTS, State, TrainingData
from bla.explainers.learned.attention import Attention
from bla.method.equations import logits_of, noise_shape, soft_explanation
from bla.method.finite import refuse_not_finite
from bla.method.initialisation import initial_module
from bla.method.modules import Module
from bla.method.scores import losses
from bla.networks.classifier import Classifier
from bla.networks.patches import Grid
from bla.runtime.generators import generators_of

AT_ONCE = 256
"""Feature maps per batch."""


class FrozenTailAttention(Attention):
    """A module trained through the classifier's own layers, which stay as they are; its state has no head."""

    def __init__(self, classifier: Classifier, settings: Any) -> None:
        """BlaError if the head shall train."""
        super().__init__(classifier, settings)
        if settings.head != "frozen":
            raise BlaError(
                "the layers after the feature map are not average pooling and one linear layer, so the head cannot be "
                "trained further; use bla_ph, which leaves it as it is"
            )

    def fit(
        self, data: TrainingData, seeds: Sequence[int], progress: Callable[[int], object] = lambda runs: None
    ) -> State:
        """Train each run's module with Adam, without dropout; BlaError if a loss is not finite."""
        states = []
        for seed in seeds:
            states.append(self._fit_run(data, seed))
            progress(1)
        return {name: torch.cat([state[name] for state in states]) for name in states[0]}

    @torch.no_grad()
    def objective(self, data: TrainingData, seeds: Sequence[int]) -> Tensor:
        """The loss with soft explanations, and with the best constant weights, both of the layers as they are."""
        values = torch.zeros(len(seeds), 1 + len(CONSTANTS), device=data.device)
        for run, seed in enumerate(seeds):
            order = torch.Generator().manual_seed(seed)
            for rows in torch.arange(len(data.labels)).split(AT_ONCE):
                x, labels = data.features[0, rows].to(data.device).float(), data.labels[rows].to(data.device)
                mean = x.mean(dim=1)
                means = [self._weighted_means(self.module.run(run), x, order), *(scale * mean for scale in CONSTANTS)]
                for number, pooled in enumerate(means):
                    values[run, number] += losses(self._scores(pooled, data), labels).sum() / len(data.labels)
        return torch.stack([values[:, 0], values[:, 1:].amin(dim=1)], dim=1).cpu()

    def _weighted_means(self, module: Module, x: Tensor, order: torch.Generator) -> Tensor:
        """The means `[B, C]` of features `[B, n, C]` with the soft weights of one run's module."""
        shape = noise_shape(self.settings, x.shape[1])
        uniform = torch.rand(len(x), *shape, generator=order).to(x.device) if shape else None
        weights = soft_explanation(self.settings, logits_of(self.settings, module(x))[0], uniform)
        return torch.einsum("bn,bnc->bc", weights, x)

    def _scores(self, pooled: Tensor, data: TrainingData) -> Tensor:
        assert data.grid is not None
        return scores_of_equal_cells(self.classifier, pooled, data.grid)

    @property
    def module(self) -> Module:
        """The modules of all runs."""
        return Module(self.state["module.weight"], self.state["module.bias"])

    def _fit_run(self, data: TrainingData, seed: int) -> State:
        features, labels, device = data.features[0], data.labels, data.device
        images, cells, channels = features.shape
        module = initial_module(self.settings, cells, channels, generators_of([seed])).to(device)
        parameters = [tensor.requires_grad_() for tensor in module.parameters()]
        schedule, order = data.schedule, torch.Generator().manual_seed(seed)
        adam = torch.optim.Adam(parameters, schedule.learning_rate, eps=schedule.adam_epsilon)
        total = torch.zeros(1, schedule.epochs)
        for epoch in range(schedule.epochs):
            for rows in torch.randperm(images, generator=order).split(schedule.batch_size):
                x = features[rows].to(device).float()
                with torch.enable_grad():
                    pooled = self._weighted_means(module, x, order)
                    loss = losses(self._scores(pooled, data), labels[rows].to(device)).mean()
                adam.zero_grad()
                loss.backward()
                adam.step()
                total[0, epoch] += loss.detach().cpu() * len(rows) / images
            if not total[0, epoch].isfinite():
                refuse_not_finite(data.features, "training images")
                raise BlaError(f"the training loss is not finite in epoch {epoch + 1}; lower learning_rate")
        module = module.moved(lambda tensor: tensor.detach().cpu())
        return {"module.weight": module.weight, "module.bias": module.bias, "losses": total}


def scores_of_equal_cells(classifier: Classifier, pooled: Tensor, grid: Grid) -> Tensor:
    """Class scores `[B, K]` of feature maps whose cells are all `pooled` `[B, C]`."""
    parts = [classifier.logits(part[:, :, None, None].expand(-1, -1, *grid))[0] for part in pooled.split(AT_ONCE)]
    return torch.cat(parts)
