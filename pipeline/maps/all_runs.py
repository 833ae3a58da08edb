"""What the runs of variants and learned methods keep of test images."""

from collections.abc import Mapping
from functools import partial
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bla.base.paper import COLUMNS
from bla.explainers.interface import require_finite_maps
from bla.explainers.registry import explainer_class
from bla.method.equations import hard_explanation, logits_of, soft_weights
from bla.method.evaluation import scores_on_hard_explanation
from bla.networks.classifier import Classifier
from bla.networks.patches import batch_size_for, cell_means
from bla.networks.remembered import with_remembered_features
from pipeline.artifacts.explained_images import load_explained, scores_from_features
from pipeline.artifacts.features import explained_features, load_grid
from pipeline.artifacts.images import load_images
from pipeline.artifacts.models import load_state, load_variant
from pipeline.maps.fitted_methods import learned_methods
from pipeline.run.environment import choose_device
from pipeline.run.methods import method_settings
from pipeline.run.settings import Settings

Maps = NDArray[np.float64]


class Explained(NamedTuple):
    """Soft weights and hard explanations `[R, N, n]` of all runs, and the class `[R, N]` that each predicts."""

    title: str
    soft: Maps
    hard: NDArray[np.bool_]
    classes: NDArray[np.int64]


class Explain(Protocol):
    """Explains test images, given their numbers `[N]`, for the `classes` `[R, N]`, or else for those that runs predict."""

    def __call__(self, numbers: NDArray[np.int64], classes: Tensor | None = None) -> Explained: ...


def explained_by(dataset: str, settings: Settings, remember: bool = False) -> Mapping[str, Explain]:
    """For each variant and learned method, a function that explains test images.

    With `remember` an image goes through the backbone once for all learned methods; feature maps stay in memory.
    """
    classifier = load_explained(dataset, settings).classifier
    if remember:
        classifier = with_remembered_features(classifier)
    variants = {name: partial(_variant, dataset, name, settings) for name in settings.variants}
    return variants | {
        name: partial(_learned, dataset, name, settings, classifier) for name in learned_methods(dataset, settings)
    }


@torch.no_grad()
def _variant(
    dataset: str, name: str, settings: Settings, numbers: NDArray[np.int64], classes: Tensor | None = None
) -> Explained:
    """Soft weights, the same for every class; the class that the variant predicts from its hard explanation."""
    device = choose_device()
    features = explained_features(dataset, numbers).float().to(device)
    spec, head, module = load_variant(dataset, name, settings)
    head, module = head.to(device), module.moved(lambda t: t.to(device))
    logits = logits_of(spec, module(features))
    soft = soft_weights(logits.double(), spec.temperature)
    predicted = scores_on_hard_explanation(features, spec, head, module).argmax(dim=2)
    values = (soft.cpu().numpy(), hard_explanation(spec, logits).cpu().numpy(), predicted.cpu().numpy())
    return Explained(COLUMNS.get(name, name), *values)


@torch.no_grad()
def _learned(
    dataset: str,
    name: str,
    settings: Settings,
    classifier: Classifier,
    numbers: NDArray[np.int64],
    classes: Tensor | None = None,
) -> Explained:
    """Maps for these classes; kept are the cells above the middle of a map's values."""
    kind, device = explainer_class(name), choose_device()
    method = kind(classifier, method_settings(settings, name, kind.Settings)).load(load_state(dataset, name))
    pixels, grid, parts = load_images(dataset, "test"), load_grid(dataset), []
    features = explained_features(dataset)
    for places in np.array_split(
        np.arange(len(numbers)), -(-len(numbers) // batch_size_for(device, pixels.shape[1:3]))
    ):
        images = torch.from_numpy(np.array(pixels[numbers[places]])).to(device)
        if classes is None:
            scores = scores_from_features(classifier, features[torch.from_numpy(numbers[places])], grid)
            targets = scores.argmax(dim=2)[: method.fitted_runs].to(device)
        else:
            targets = classes[: method.fitted_runs, torch.from_numpy(places)].to(device)
        of_runs = method.explain_runs(images, targets, torch.zeros(len(places), dtype=torch.int64)).double()
        require_finite_maps(method, of_runs, int(places[0]))
        cells = cell_means(of_runs.flatten(0, 1), grid).flatten(1).unflatten(0, of_runs.shape[:2])
        parts.append((cells.cpu(), targets.cpu()))
    soft, explained = (torch.cat(values, dim=1).numpy() for values in zip(*parts, strict=True))
    low, high = soft.min(axis=2, keepdims=True), soft.max(axis=2, keepdims=True)
    return Explained(kind.title_of(method.state), soft, soft > (low + high) / 2, explained)
