"""The Explainer: a network that draws a mask for each class, trained to show a frozen classifier what it needs.

Stalder et al. 2022. Objective: `bla.explainers.explanandum`; networks: `bla.explainers.mask_networks`. Once trained, it
looks at the image alone: a classifier with other weights gets the same masks.
"""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call

from bla.base.errors import BlaError
from bla.explainers.explanandum import ExplainerSettings, objective
from bla.explainers.interface import CONSTANTS, SHORT, Card, LearnedExplainer, State, TrainingData, marked_if_short
from bla.explainers.l_cam import as_maps
from bla.explainers.mask_networks import build_network, empty_network
from bla.runtime.adam import Adam
from bla.runtime.seeds import derive_seed
from bla.runtime.threads import side_by_side

EPSILON = 1e-8
"""Of Adam (torch's default, as in the authors' code)."""


class ExplainerNetwork(LearnedExplainer):
    """A mask network per run, trained on the labels of the images and the run's own classifier, on few images."""

    title = "Explainer"
    trains_on_images = True
    card = Card(
        sentence="Which parts of the image show the class, as a network of its own has learned to mask them.",
        source="Stalder et al. 2022",
        needs="gradients with respect to pixels, to train; then no classifier",
        cost="1 forward pass of its own network, none of the classifier, after training",
        proof="terms of the objective, computed by hand",
    )
    Settings: ClassVar = ExplainerSettings
    makes_masks: ClassVar[bool] = True
    settings: ExplainerSettings

    def fit(
        self, data: TrainingData, seeds: Sequence[int], progress: Callable[[int], object] = lambda runs: None
    ) -> State:
        """Train a network for each run; on a CPU runs train side by side."""
        available, data, classes = len(data.labels), data.some(self.settings.images), self._class_count(data)
        networks = [build_network(self.settings.network, classes, derive_seed(seed, "network")) for seed in seeds]

        def work(run: int) -> State:
            return self._train(run, networks[run].to(data.device), data, seeds[run])

        workers = min(torch.get_num_threads(), len(seeds)) if data.device.type == "cpu" else 1
        states = []
        for state in side_by_side(work, range(len(seeds)), workers):
            states.append(state)
            progress(1)
        state = {name: torch.stack([of_run[name] for of_run in states]) for name in states[0]}
        return marked_if_short(state, len(data.labels), available)

    @torch.no_grad()
    def objective(self, data: TrainingData, seeds: Sequence[int]) -> Tensor:
        """The objective on at most half as many images as it trains on."""
        data = data.some(max(1, self.settings.images // 2))
        classes, runs = self._class_count(data), len(self.state["losses"])
        totals = torch.zeros(runs, 1 + len(CONSTANTS), device=data.device)
        # Twice as many at a time as in training, since no gradients are kept; the value does not depend on it.
        for rows in _batches(torch.arange(len(data.labels)), 2 * self.settings.batch_size):
            pixels, labels = _batch(data, rows)
            flat = [pixels.new_tensor(c).logit().expand(len(rows), classes, *pixels.shape[1:3]) for c in CONSTANTS]
            for run in range(runs):
                logits = [self._logits(run, pixels), *flat]
                values = [self._objective(run, pixels, labels, each) for each in logits]
                totals[run] += torch.stack(values) * len(rows) / len(data.labels)
        return torch.stack([totals[:, 0], totals[:, 1:].amin(dim=1)], dim=1).cpu()

    def explain(self, images: Tensor, targets: Tensor, seeds: Tensor) -> Tensor:
        """Masks `[B, H, W]` in [0, 1] of the first run."""
        return self.explain_runs(images, targets[None], seeds)[0]

    @torch.no_grad()
    def explain_runs(self, images: Tensor, targets: Tensor, seeds: Tensor) -> Tensor:
        """Masks `[R, B, H, W]` in [0, 1] of every run."""
        rows = torch.arange(len(images), device=images.device)
        return torch.stack([self._logits(run, images)[rows, of_run].sigmoid() for run, of_run in enumerate(targets)])

    def _train(self, run: int, network: nn.Module, data: TrainingData, seed: int) -> State:
        """The trained network's tensors and its `losses` `[epochs]`, on the CPU; BlaError if a loss is not finite."""
        settings, generator = self.settings, torch.Generator().manual_seed(derive_seed(seed, "order"))
        adam, count = Adam(list(network.parameters()), settings.learning_rate, EPSILON), len(data.labels)
        losses = torch.zeros(settings.epochs, device=data.device)
        for epoch in range(settings.epochs):
            for rows in _batches(torch.randperm(count, generator=generator), settings.batch_size):
                pixels, labels = _batch(data, rows)
                loss = self._objective(run, pixels, labels, network(self._normalised(pixels)))
                adam.minimise(loss)
                losses[epoch] += loss.detach() * len(rows) / count
            if not losses[epoch].isfinite():
                raise BlaError(f"the training loss is not finite in epoch {epoch + 1}; lower learning_rate")
        state = {name: value.detach().cpu() for name, value in network.state_dict().items()}
        return state | {"losses": losses.cpu()}

    def _objective(self, run: int, images: Tensor, labels: Tensor, logits: Tensor) -> Tensor:
        classifier = self.classifier.run(run)

        def classify(shown: Tensor) -> Tensor:
            scores: Tensor = classifier(shown)
            return scores[0]

        return objective(self.settings, classifier.scores, classify, self._mean(), images, labels, logits)

    def _logits(self, run: int, images: Tensor) -> Tensor:
        """The logits `[B, K, H, W]` that the network of a run gives images `[B, H, W, 3]`."""
        state = {name: values[run] for name, values in self.state.items() if name not in ("losses", SHORT)}
        network = empty_network(self.settings.network, state)
        logits: Tensor = functional_call(network, state, (self._normalised(images.float()),))
        return logits

    def _normalised(self, images: Tensor) -> Tensor:
        return (images - self._mean()).permute(0, 3, 1, 2) / 128

    def _mean(self) -> Tensor:
        extractor: Any = self.classifier.extractor
        mean: Tensor = extractor.mean.flatten()
        return mean

    def _class_count(self, data: TrainingData) -> int:
        assert data.grid is not None
        maps = as_maps(data.features[0][:1].to(data.device).float(), data.grid)
        return int(self.classifier.logits(maps).shape[2])


def _batches(order: Tensor, size: int) -> Sequence[Tensor]:
    """Batches of nearly equal size, at most `size`: the last has no single image, which batch normalisation cannot take."""
    return order.tensor_split(-(-len(order) // size))


def _batch(data: TrainingData, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels `[B, H, W, 3]` in [0, 255] and labels of some images, on the data's device."""
    assert data.images is not None
    return torch.from_numpy(data.images[rows.numpy()]).to(data.device).float(), data.labels[rows.to(data.labels.device)]
