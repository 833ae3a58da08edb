"""L-CAM-Fm: a mask for each class, learned by masking the classifier's feature map; it trains on cached features alone.

Gkartzonika, Gkalelis and Mezaris 2022. Objective, training and maps: `bla.explainers.l_cam`.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from bla.explainers.interface import Card, LearnedExplainer, State, TrainingData, marked_if_short
from bla.explainers.l_cam import LCamSettings, Masked, Objective, as_maps, class_maps, held_out, predictions, train
from bla.method.training import resident
from bla.runtime.threads import side_by_side


class LCamFm(LearnedExplainer):
    """One head per run, which learns to keep the run's own predictions when its masks weigh the cells."""

    title = "L-CAM-Fm"
    card = Card(
        sentence="Which cells must keep their features for the class to be predicted.",
        source="Gkartzonika, Gkalelis and Mezaris 2022",
        needs="features, and the layers after them",
        cost="1 forward pass, after training",
        proof="values of the objective and a training step, computed by hand",
    )
    Settings: ClassVar = LCamSettings
    settings: LCamSettings

    def fit(
        self, data: TrainingData, seeds: Sequence[int], progress: Callable[[int], object] = lambda runs: None
    ) -> State:
        """Train a head for each run, on the classes that this run predicts; on a CPU runs train side by side."""
        available, data = len(data.labels), self.used(data)
        if not data.schedule.images_in_memory:
            data = replace(data, features=resident(data.features, data.device))
        labels, classes = predictions(self.classifier, data)

        def work(run: int) -> State:
            objective = self._objective(run, data)
            return train(objective, data, labels[run], classes, seeds[run], data.first_epoch + run)

        workers = min(torch.get_num_threads(), len(seeds)) if data.device.type == "cpu" else 1
        parts = []
        for part in side_by_side(work, range(len(seeds)), workers):
            parts.append(part)
            progress(1)
        state = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        return marked_if_short(state, len(data.labels), available)

    def objective(self, data: TrainingData, seeds: Sequence[int]) -> Tensor:
        """The objective on the classes that each run predicts, in batches of the size of training."""
        data = self.used(data)
        labels = predictions(self.classifier, data)[0][:, 0]
        heads = zip(self.state["weight"], self.state["bias"], strict=True)
        values = [held_out(self._objective(run, data), head, data, labels[run]) for run, head in enumerate(heads)]
        return torch.stack(values).cpu()

    def explain(self, images: Tensor, targets: Tensor, seeds: Tensor) -> Tensor:
        """Maps `[B, h, w]` in [0, 1] of the first run."""
        return self.explain_runs(images, targets[None], seeds)[0]

    @torch.no_grad()
    def explain_runs(self, images: Tensor, targets: Tensor, seeds: Tensor) -> Tensor:
        """Maps `[R, B, h, w]` in [0, 1] of every run, from one pass over the images."""
        return class_maps(self.state, self.classifier.finite_features(images), targets)

    def used(self, data: TrainingData) -> TrainingData:
        """The part of the data that it uses: all."""
        return data

    def masked(self, run: int, data: TrainingData) -> Masked:
        """Class scores from feature maps that a mask weighs cell by cell."""
        classifier, grid = self.classifier.run(run), data.grid
        assert grid is not None

        def scores(features: Tensor, masks: Tensor, rows: Tensor) -> Tensor:
            weights = masks.flatten(2)
            if classifier.is_pooled:  # the mean over the cells is enough, and several times faster
                pooled = torch.einsum("mbn,bnc->mbc", weights, features) / weights.shape[2]
                logits = classifier.logits(pooled.flatten(0, 1)[..., None, None])[0]
                return logits.unflatten(0, masks.shape[:2])  # type: ignore[no-any-return]
            shown = (as_maps(features * of[..., None], grid) for of in weights)
            return torch.stack([classifier.logits(maps)[0] for maps in shown])

        return scores

    def _objective(self, run: int, data: TrainingData) -> Objective:
        assert data.grid is not None
        return Objective(self.settings, self.classifier.scores, data.grid, self.masked(run, data))
