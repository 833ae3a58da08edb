"""Maps of two classes for test images that the classifier gets wrong, and for as many that it gets right."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from bla.base.errors import BlaError
from bla.datasets import spread_over_classes
from bla.experiments.errors.tables import two_classes
from bla.explainers.all_maps import maps_of_classes
from bla.networks.remembered import with_remembered_features
from bla.runtime.seeds import derive_seed
from pipeline.artifacts.explained_images import load_explained, scores_from_features
from pipeline.artifacts.features import explained_features, load_grid
from pipeline.artifacts.images import load_images
from pipeline.artifacts.models import load_state
from pipeline.maps.fitted_methods import learned_methods
from pipeline.maps.method_maps import Method
from pipeline.run.settings import Settings

MEASURED = 50
"""Images that are wrong, and images that are right, at most."""


@dataclass(frozen=True)
class ClassMaps:
    """Maps `[2, M, h, w]` of M test images by method, of the classes `[2, M]`: the predicted and the true one.

    For right images the second class is the second most probable one. `numbers` `[M]` are indices of test images,
    `images` uint8 `[M, H, W, 3]`; `wrong` is bool `[N]`, of all test images. `titles` are the methods'.
    """

    numbers: NDArray[np.int64]
    images: NDArray[np.uint8]
    classes: NDArray[np.int64]
    wrong: NDArray[np.bool_]
    maps: dict[str, Tensor]
    titles: dict[str, str]


@torch.no_grad()
def class_maps(dataset: str, settings: Settings, labels: NDArray[np.int64]) -> ClassMaps:
    """The maps of the run `faithfulness.run`; `labels` `[N]` are those of all test images."""
    explained = load_explained(dataset, settings)
    run = settings.faithfulness.run if explained.classifier.runs > 1 else 0
    model = with_remembered_features(explained.classifier_of(run))
    scores = scores_from_features(model, explained_features(dataset), load_grid(dataset))[0].double().numpy()
    wrong = scores.argmax(axis=1) != labels
    numbers = np.concatenate([_some(labels, wrong), _some(labels, ~wrong)])
    classes = two_classes(scores, labels)[:, numbers]
    images = torch.from_numpy(np.array(load_images(dataset, "test")[numbers])).to(model.device)
    seeds = torch.tensor([derive_seed(settings.seed, dataset, "errors", number) for number in numbers])
    maps, titles = {}, {}
    for method in tqdm(_methods(dataset, settings, run), f"{dataset} errors", disable=None):
        try:
            explainer, targets = method.build(model), torch.from_numpy(classes).to(model.device)
        except BlaError as error:
            print(f"{dataset}: {method.name} is left out: {error}")
            continue
        maps[method.name] = maps_of_classes(explainer, images, targets, seeds).double()
        titles[method.name] = method.title
    return ClassMaps(numbers, images.cpu().numpy(), classes, wrong, maps, titles)


def _methods(dataset: str, settings: Settings, run: int) -> list[Method]:
    """The methods whose maps depend on the class, without slow ones and controls."""
    methods = [Method(name, settings, None) for name in settings.explainers]
    for name in learned_methods(dataset, settings):
        state = {key: values[run : run + 1] for key, values in load_state(dataset, name).items()}
        methods.append(Method(name, settings, state))
    kinds = [(method, method.explainer) for method in methods]
    return [method for method, kind in kinds if kind.class_specific and not kind.slow and not kind.control]


def _some(labels: NDArray[np.int64], among: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The numbers of at most `MEASURED` of the true entries, spread over the classes."""
    places = np.flatnonzero(among)
    return places[spread_over_classes(labels[places], min(MEASURED, len(places)))] if len(places) else places
