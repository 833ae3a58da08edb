"""What the stages about faithfulness explain: some test images, and the baseline classifiers of all runs."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bla.datasets import spread_over_classes
from bla.networks.backbones import batch_size_for, fold_batch_norm, load_backbone
from bla.networks.classifier import Classifier
from pipeline.artifacts.images import load_images, load_labels
from pipeline.artifacts.models import BACKBONES, HEADS, load_head
from pipeline.run.environment import choose_device
from pipeline.run.settings import Settings


@dataclass(frozen=True)
class ExplainedImages:
    """M test images, spread over the classes, and the classifier of all runs.

    `numbers` int64 `[M]` among the test images, `images` uint8 `[M, H, W, 3]` and `classifier` on the device, `labels`
    int64 `[M]`. `slow` and `checked` bool `[M]` are the images for methods that need many forward passes, and for what
    has such a method explain again.
    """

    numbers: NDArray[np.int64]
    images: Tensor
    labels: NDArray[np.int64]
    slow: NDArray[np.bool_]
    checked: NDArray[np.bool_]
    classifier: Classifier


def load_explained(dataset: str, settings: Settings) -> ExplainedImages:
    """The images that `faithfulness` asks for, and BL's heads on the backbone."""
    entry, spec, device = settings.dataset[dataset], settings.faithfulness, choose_device()
    all_labels = load_labels(dataset, "test")
    numbers = spread_over_classes(all_labels, min(spec.images, len(all_labels)))
    slow = _spread(np.ones(len(numbers), bool), spec.slow_images)
    pixels = torch.from_numpy(load_images(dataset, "test")[numbers]).to(device)
    head = load_head(dataset, settings.runs)
    extractor = fold_batch_norm(load_backbone(entry.backbone, BACKBONES / f"{dataset}.safetensors", pixels.shape[1]))
    classifier = Classifier(extractor, head).to(device).eval()
    checked = _spread(slow, spec.check_images)
    return ExplainedImages(numbers, pixels, np.array(all_labels[numbers]), slow, checked, classifier)


def key_parts(explained: ExplainedImages, dataset: str, settings: Settings) -> tuple[list[object], list[object]]:
    """For `cache_key`: the settings and the data that decide what is computed from these images and classifiers."""
    weights = [BACKBONES / f"{dataset}.safetensors", HEADS / f"{dataset}.safetensors"]
    used = [settings.dataset[dataset].backbone, str(choose_device())]
    masks = [explained.slow, explained.checked]
    return [*used], [*weights, explained.images, explained.numbers, *masks]


def _spread(among: NDArray[np.bool_], count: int) -> NDArray[np.bool_]:
    """Some of the images that are true, evenly spread."""
    places = np.nonzero(among)[0]
    count = min(count, len(places))
    chosen = np.zeros(len(among), bool)
    chosen[places[(2 * np.arange(count) + 1) * len(places) // (2 * count)]] = True
    return chosen


@torch.no_grad()
def predicted_classes(explained: ExplainedImages) -> Tensor:
    """The class that each run predicts for each image, `[R, M]`, on the device: what is explained."""
    size = batch_size_for(explained.images.device, explained.images.shape[1])
    return torch.cat([explained.classifier(part).argmax(dim=2) for part in explained.images.split(size)], dim=1)
