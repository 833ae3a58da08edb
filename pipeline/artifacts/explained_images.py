"""The pairs (test image, class) that the stages about faithfulness explain, and the classifiers of all runs."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bla.base.errors import BlaError
from bla.datasets import Labels, class_of_each, spread_over_classes
from bla.method.modules import EVALUATION_CHUNK
from bla.method.scores import scores_of
from bla.networks.backbones import Extractor, load_backbone
from bla.networks.classifier import Classifier, OwnTail
from bla.networks.folding import fold_batch_norm
from bla.networks.patches import Grid, batch_size_for
from bla.networks.sources import last_layer
from pipeline.artifacts.images import class_names, load_images, load_labels
from pipeline.artifacts.models import BACKBONES, HEADS, load_head
from pipeline.run.environment import choose_device
from pipeline.run.settings import Settings


@dataclass(frozen=True)
class ExplainedImages:
    """M test images, spread over the classes, and the classifier of all runs.

    `numbers` int64 `[M]` are indices of test images; `images` uint8 `[M, H, W, 3]` and `classifier` are on the device;
    `labels` are int64 `[M]` or multi-hot bool `[M, K]`. `classes` int64 `[M]` are the classes to explain if images have
    several labels; None if the predicted class of each run is explained. Methods with many forward passes explain only
    the images `slow` bool `[M]`, and noisy images and random classifiers only for the images `checked` bool `[M]`. A
    dataset in `faithfulness.left_out` has none of either.
    """

    numbers: NDArray[np.int64]
    images: Tensor
    labels: Labels
    classes: NDArray[np.int64] | None
    slow: NDArray[np.bool_]
    checked: NDArray[np.bool_]
    classifier: Classifier

    def classifier_of(self, run: int) -> Classifier:
        """The classifier of one run; a network's own tail is the same in all runs."""
        return self.classifier.run(run if self.classifier.runs > 1 else 0)


def load_explained(dataset: str, settings: Settings) -> ExplainedImages:
    """The images that `faithfulness` selects, and the classifier: BL's heads on a backbone, or a network's own tail."""
    spec, backbone, device = settings.faithfulness, settings.dataset[dataset].backbone, choose_device()
    all_labels = load_labels(dataset, "test")
    numbers = spread_over_classes(all_labels, min(spec.images, len(all_labels)))
    labels: Labels = np.array(all_labels)[numbers]  # type: ignore[assignment]
    one_each = class_of_each(all_labels)[numbers]
    slow = spread(np.full(len(numbers), dataset not in spec.left_out), one_each, spec.slow_images)
    checked = spread(slow, one_each, spec.check_images)
    pixels = torch.from_numpy(load_images(dataset, "test")[numbers]).to(device)
    _, height, width, _ = pixels.shape
    extractor = load_backbone(backbone, BACKBONES / f"{dataset}.safetensors", (height, width))
    classifier = load_classifier(dataset, settings, fold_batch_norm(extractor)).to(device).eval()
    classes = None if labels.ndim == 1 else one_each
    return ExplainedImages(numbers, pixels, labels, classes, slow, checked, classifier)


def load_classifier(dataset: str, settings: Settings, extractor: Extractor) -> Classifier:
    """The classifier on a backbone: BL's heads of all runs, or the network's own tail, as set by the entry's `tail`.

    Raises BlaError if the tail and the images have different numbers of classes: labels would mean other classes.
    """
    tail = settings.dataset[dataset].backbone.tail
    if tail == "pooled":
        labels = torch.from_numpy(np.array(load_labels(dataset, "test")[:1]))
        return Classifier(extractor, load_head(dataset, settings.runs), scores_of(labels))
    network, names = extractor.network, class_names(dataset)
    scored = len(network.weights()[last_layer(network)])
    if scored != len(names):
        raise BlaError(
            f"params.yaml: dataset.{dataset}.backbone.tail: the network scores {scored} classes, but the images have "
            f"{len(names)}; use images of all its classes, sorted as in its training, or set tail to pooled"
        )
    return Classifier(extractor, OwnTail(extractor.network), "softmax" if tail == "own_softmax" else "sigmoid")


def scores_from_features(classifier: Classifier, features: Tensor, grid: Grid) -> Tensor:
    """Class scores `[R, N, K]` of every run, on the CPU, from cached features `[N, n, C]`."""
    parts = (part.float().transpose(1, 2).unflatten(2, grid) for part in features.split(EVALUATION_CHUNK))
    return torch.cat([classifier.logits(part.to(classifier.device)).cpu() for part in parts], dim=1)


def key_parts(explained: ExplainedImages, dataset: str, settings: Settings) -> tuple[list[object], list[object]]:
    """For `cache_key`: the settings and data on which every result from these images and classifiers depends."""
    weights = [BACKBONES / f"{dataset}.safetensors", HEADS / f"{dataset}.safetensors"]
    used = [settings.dataset[dataset].backbone, str(choose_device())]
    masks = [explained.slow, explained.checked]
    return [*used], [*weights, explained.images, explained.numbers, *masks]


def spread(among: NDArray[np.bool_], classes: NDArray[np.int64], count: int) -> NDArray[np.bool_]:
    """At most `count` of the true entries, spread over their `classes`, as a bool array."""
    places, chosen = np.flatnonzero(among), np.zeros(len(among), bool)
    if len(places):
        chosen[places[spread_over_classes(classes[places], count)]] = True
    return chosen


@torch.no_grad()
def explained_classes(explained: ExplainedImages) -> Tensor:
    """The class to explain for each run and image, `[R, M]`, on the device: the predicted one, or `classes`."""
    device, runs = explained.images.device, explained.classifier.runs
    if explained.classes is not None:
        return torch.from_numpy(explained.classes).to(device).expand(runs, -1).contiguous()
    size = batch_size_for(device, explained.images.shape[1:3])
    return torch.cat([explained.classifier(part).argmax(dim=2) for part in explained.images.split(size)], dim=1)
