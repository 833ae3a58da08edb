"""XNN: a few x-features from which a class's logit can be predicted, each seen by the Grad-CAM of the x-feature.

Qi, Khorram and Li 2017 (arXiv 1709.05360). Objective, training and the number of x-features: `bla.explainers.x_features`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from bla.explainers.interface import Card, LearnedExplainer, State, TrainingData
from bla.explainers.l_cam import PREDICTED_AT_ONCE, as_maps
from bla.explainers.mask_optimisation import MaskSettings
from bla.explainers.optimised.i_gos import IGos
from bla.explainers.x_features import Layers, XNNSettings, encode, fit_class, grad_cams
from bla.method.modules import pooled
from bla.networks.classifier import Classifier
from bla.networks.patches import Grid
from bla.runtime.seeds import derive_seed
from bla.runtime.threads import side_by_side

TINY = 1e-30
"""Values of an x-feature below this are 0, because quotients by them are infinite in single precision."""


class XNN(LearnedExplainer):
    """One autoencoder for each run and class; the map is that of the x-feature with the largest contribution."""

    title = "XNN"
    card = Card(
        sentence="Where the x-feature is seen that adds most to the predicted logit of the class.",
        source="Qi, Khorram and Li 2017",
        needs="features; to train, logits",
        cost="1 forward pass, after training",
        proof="hand-computed terms of the objective, a logit made of two features, Grad-CAM by autograd",
    )
    Settings: ClassVar = XNNSettings
    settings: XNNSettings

    def fit(
        self, data: TrainingData, seeds: Sequence[int], progress: Callable[[int], object] = lambda runs: None
    ) -> State:
        """Train an autoencoder for each run and class on pooled features; on a CPU classes train side by side."""
        draws = [pooled_and_logits(self.classifier, features, data.grid, data.device) for features in data.features]
        features, logits = torch.stack([d[0] for d in draws]), torch.stack([d[1] for d in draws], dim=1)  # [R, D, N, K]
        classes = logits.shape[3]

        def work(item: tuple[int, int]) -> State:
            run, label = item
            of_class = logits[run, ..., label].contiguous()
            return fit_class(features, of_class, self.settings, derive_seed(seeds[run], label), data.first_epoch + run)

        items = [(run, label) for run in range(len(seeds)) for label in range(classes)]
        workers = min(torch.get_num_threads(), len(items)) if data.device.type == "cpu" else 1
        parts = []
        for part in side_by_side(work, items, workers):
            parts.append(part)
            if len(parts) % classes == 0:
                progress(1)
        return {name: torch.stack([p[name] for p in parts]).unflatten(0, (len(seeds), classes)) for name in parts[0]}

    def objective(self, data: TrainingData, seeds: Sequence[int]) -> Tensor:
        """The mean squared error of the predicted logits over images and classes, and that of the best constant logits."""
        features, logits = pooled_and_logits(self.classifier, data.features[0], data.grid, data.device)
        predicted = torch.stack([self.contributions(features, run).sum(dim=2) + self.state["head.bias"][run] for run in range(len(seeds))])  # fmt: skip
        logits = logits[: len(seeds)]
        errors = (predicted - logits).square().mean(dim=(1, 2)), logits.var(dim=1, unbiased=False).mean(dim=1)
        return torch.stack(errors, dim=1).cpu()

    @classmethod
    def trained_parameters(cls, state: Mapping[str, Tensor]) -> int:
        """Those of encoder and head, and of the decoder, which mirrors the encoder and is not in the state."""
        kept = sum(values[0].numel() for name, values in state.items() if name.startswith(("encoder.", "head.")))
        weights = [values[0] for name, values in state.items() if name.startswith("encoder.") and values[0].ndim == 3]
        return kept + sum(w.numel() + w.shape[0] * w.shape[2] for w in weights)  # [K, outputs, inputs]

    def encoder(self, run: int, label: int) -> Layers:
        """The layers of the encoder of a run and class."""
        count = sum(name.startswith("encoder.") for name in self.state) // 2
        return [(self.state[f"encoder.{i}.weight"][run, label], self.state[f"encoder.{i}.bias"][run, label]) for i in range(count)]  # fmt: skip

    @torch.no_grad()
    def contributions(self, features: Tensor, run: int) -> Tensor:
        """What each x-feature adds to the predicted logit of each class, `[N, K, X]`, for pooled features `[N, C]`."""
        weights = self.state["head.weight"][run]
        x = [encode(self.encoder(run, label), features)[-1] for label in range(len(weights))]
        return torch.stack(x, dim=1) * weights

    def i_gos_maps(self, run: int, label: int, x_feature: int, images: Tensor, masks: MaskSettings) -> Tensor:
        """Maps `[B, s, s]` in [0, 1] of one x-feature by I-GOS: the smallest smooth part whose deletion lowers its value.

        `images` are uint8 `[B, H, W, 3]`. The value, divided by that of the whole image, stands for the probability; where
        it is 0, or below `TINY`, the map is 0.
        """
        maps, zero = [], torch.zeros(1, dtype=torch.int64, device=images.device)
        for image in images.split(1):
            x = encode(self.encoder(run, label), self.classifier.features(image).float().mean(dim=(2, 3)))[-1]
            whole = float(x[0, x_feature])
            whole = whole if abs(whole) >= TINY else 0
            value = XFeature(self.classifier.extractor, self.encoder(run, label), x_feature, whole or 1)
            made = IGos(value, masks).explain(image, zero, zero)
            maps.append(made if whole else torch.zeros_like(made))
        return torch.cat(maps)

    def explain(self, images: Tensor, targets: Tensor, seeds: Tensor) -> Tensor:
        """Maps `[B, h, w]`, none negative, of the first run; 0 where no x-feature of the class is active."""
        return self.explain_runs(images, targets[None], seeds)[0]

    @torch.no_grad()
    def explain_runs(self, images: Tensor, targets: Tensor, seeds: Tensor) -> Tensor:
        """Maps `[R, B, h, w]` of every run, from one pass over the images."""
        maps = self.classifier.finite_features(images).float()
        result = maps.new_zeros(len(targets), len(maps), *maps.shape[2:])
        for run, of_run in enumerate(targets):
            for label in of_run.unique().tolist():
                rows = (of_run == label).nonzero()[:, 0]
                x, cams = grad_cams(self.encoder(run, label), maps[rows])
                weight = self.state["head.weight"][run, label]
                largest = torch.where(x * (weight != 0) > 0, x * weight, -torch.inf).argmax(dim=1)
                active = (x * (weight != 0)).gather(1, largest[:, None]) > 0
                result[run, rows] = cams[torch.arange(len(rows)), largest] * active[..., None]
        return result


class XFeature(Classifier):
    """One x-feature as a classifier with one class, whose value takes the place of the probability."""

    def __init__(self, extractor: nn.Module, encoder: Layers, x_feature: int, divisor: float) -> None:
        super().__init__(extractor, XFeatureTail(encoder, x_feature, divisor))

    def probabilities(self, logits: Tensor) -> Tensor:
        """The values as they are."""
        return logits


class XFeatureTail(nn.Module):
    """The value of one x-feature of a feature map, divided by `divisor`."""

    def __init__(self, encoder: Layers, x_feature: int, divisor: float) -> None:
        super().__init__()
        self.encoder, self.x_feature, self.divisor = encoder, x_feature, divisor

    def forward(self, features: Tensor) -> Tensor:
        """Values `[1, B, 1]` of a feature map `[B, C, h, w]`."""
        x = encode(self.encoder, features.float().mean(dim=(2, 3)))[-1]
        return x[None, :, self.x_feature, None] / self.divisor


@torch.no_grad()
def pooled_and_logits(
    classifier: Classifier, features: Tensor, grid: Grid | None, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Average-pooled features `[N, C]`, and the logits `[R, N, K]` of every run, of features `[N, n, C]`, on the device."""
    means = pooled(features)[:, 0].to(device)
    if classifier.is_pooled:
        return means, classifier.logits(means[..., None, None])
    assert grid is not None
    parts = (as_maps(part.to(device).float(), grid) for part in features.split(PREDICTED_AT_ONCE))
    return means, torch.cat([classifier.logits(part) for part in parts], dim=1)
