"""Maps of a trained explanation module: BLA, BLA-T, BLA-PH and L2X-F.

Baumhauer et al. 2021, section 3: the soft explanation q = softmax(theta l) before any threshold, without L2X-F's noise.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import ClassVar

import torch
from torch import Tensor

from bla.base.errors import BlaError
from bla.base.specs import Explaining
from bla.explainers.interface import CONSTANTS, Card, LearnedExplainer, State, TrainingData
from bla.method.equations import logits_of, soft_weights
from bla.method.evaluation import evaluate
from bla.method.modules import Module, Trained, pooled
from bla.method.scores import losses
from bla.method.training import train


class Attention(LearnedExplainer):
    """A variant's explanation module, with the variant's settings. It uses the features and no head.

    Its state includes the heads, which train with it unless the variant freezes them.
    """

    title = "explanation module"
    card = Card(
        sentence="How much weight the module gives each cell when the head pools them.",
        source="Baumhauer et al. 2021, section 3; L2X-F after Chen et al. 2018",
        needs="features; to train, a linear head on their average",
        cost="1 forward pass, after training",
        proof="tests/precision: the authors' numbers, and a plain training loop",
    )
    Settings: ClassVar = Explaining
    class_specific: ClassVar[bool] = False
    settings: Explaining

    def fit(
        self, data: TrainingData, seeds: Sequence[int], progress: Callable[[int], object] = lambda runs: None
    ) -> State:
        """Train the module, and the head if the variant says so, from the classifier's heads (section 4.2)."""
        head, start = self.classifier.linear_head(), data.first_epoch
        features, labels, device = data.features, data.labels, data.device
        trained = train(
            features, labels, self.settings, head, seeds, data.schedule, start, progress=progress, device=device
        )
        return trained.state()

    @property
    def trained(self) -> Trained:
        """The heads and modules of all runs."""
        return Trained.from_state(self.state, getattr(self.settings, "activation", "linear") == "relu")

    @property
    def module(self) -> Module:
        """The modules of all runs."""
        module = self.trained.module
        assert module is not None
        return module

    def objective(self, data: TrainingData, seeds: Sequence[int]) -> Tensor:
        """The loss with soft explanations, and with the best constant weights under the trained or the classifier's heads.

        The trained heads expect the module's weights; the classifier's, if it has linear ones, were trained with
        constant weights.
        """
        features, labels = data.features[0], data.labels
        result = evaluate(features, labels, self.settings, self.trained, seeds, data.device)
        assert result.explained is not None
        heads = [self.trained.head]
        with suppress(BlaError):  # a network's own tail
            heads.append(self.classifier.linear_head())
        means = pooled(features)[None, :, 0].to(data.device)
        constant = [
            losses(head(scale * means.expand(len(head.weight), -1, -1)), labels.to(data.device)).mean(dim=1)
            for head in heads
            for scale in CONSTANTS
        ]
        return torch.stack([result.explained.loss.mean(dim=1), torch.stack(constant).amin(dim=0).cpu()], dim=1)

    def explain(self, images: Tensor, targets: Tensor, seeds: Tensor) -> Tensor:
        """Soft weights `[B, h, w]` of the first run, which sum to 1."""
        return self.explain_runs(images, targets[None], seeds)[0]

    @torch.no_grad()
    def explain_runs(self, images: Tensor, targets: Tensor, seeds: Tensor) -> Tensor:
        """Soft weights `[R, B, h, w]` of every run, from one pass over the images."""
        features = self.classifier.finite_features(images)
        logits = logits_of(self.settings, self.module(features.flatten(2).transpose(1, 2).float()))
        weights = soft_weights(logits.double(), self.settings.temperature)
        return weights.view(len(weights), len(images), *features.shape[2:])
