"""What the stages about faithfulness explain: some test images, and the baseline classifiers of all runs."""

import hashlib
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from bla.base.errors import BlaError
from bla.base.specs import Explaining, NoExplanation
from bla.datasets import spread_over_classes
from bla.explainers import occlusion
from bla.method.modules import Module
from bla.networks import backbones, patches
from bla.networks.backbones import batch_size_for, fold_batch_norm, load_backbone
from bla.networks.classifier import Classifier
from pipeline.artifacts.files import load_array
from pipeline.artifacts.paths import BACKBONES, EXPLAINERS, HEADS, IMAGES
from pipeline.artifacts.runs import load_head
from pipeline.run.settings import Settings
from pipeline.run.stage import choose_device


@dataclass(frozen=True)
class Explained:
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


def load_explained(dataset: str, settings: Settings) -> Explained:
    """The images that `faithfulness` asks for, and BL's heads on the backbone."""
    entry, spec, device = settings.dataset[dataset], settings.faithfulness, choose_device()
    all_labels = load_array(IMAGES / dataset / "test_labels.npy")
    numbers = spread_over_classes(all_labels, min(spec.images, len(all_labels)))
    slow = _spread(np.ones(len(numbers), bool), spec.slow_images)
    pixels = torch.from_numpy(load_array(IMAGES / dataset / "test_images.npy")[numbers]).to(device)
    head = load_head(HEADS / f"{dataset}.safetensors")
    if len(head.weight) != settings.runs:
        raise BlaError(f"{HEADS / dataset}.safetensors: not {settings.runs} heads; run dvc repro baseline@{dataset}")
    extractor = fold_batch_norm(load_backbone(entry.backbone, BACKBONES / f"{dataset}.safetensors", pixels.shape[1]))
    classifier = Classifier(extractor, head).to(device).eval()
    checked = _spread(slow, spec.check_images)
    return Explained(numbers, pixels, np.array(all_labels[numbers]), slow, checked, classifier)


def _spread(among: NDArray[np.bool_], count: int) -> NDArray[np.bool_]:
    """Some of the images that are true, evenly spread."""
    places = np.nonzero(among)[0]
    count = min(count, len(places))
    chosen = np.zeros(len(among), bool)
    chosen[places[(2 * np.arange(count) + 1) * len(places) // (2 * count)]] = True
    return chosen


@torch.no_grad()
def predicted_classes(explained: Explained) -> Tensor:
    """The class that each run predicts for each image, `[R, M]`, on the device: what is explained."""
    size = batch_size_for(explained.images.device, explained.images.shape[1])
    return torch.cat([explained.classifier(part).argmax(dim=2) for part in explained.images.split(size)], dim=1)


def load_arrays(path: Path, stage: str, dataset: str, explained: Explained) -> dict[str, NDArray[Any]]:
    """What an earlier stage wrote about the images; BlaError if it was about others."""
    try:
        arrays = load_file(path)
    except SafetensorError as error:
        raise BlaError(f"{path}: damaged ({error}); delete it and run dvc repro {stage}@{dataset}") from error
    if not np.array_equal(arrays["images"].numpy(), explained.numbers):
        raise BlaError(f"{path}: of other images than `faithfulness` asks for; run dvc repro {stage}@{dataset}")
    return {name: values.numpy() for name, values in arrays.items()}


def load_module(dataset: str, key: str, settings: Settings) -> tuple[Explaining, Module]:
    """A variant's settings and its modules of all runs, `[R, C]`."""
    spec = settings.variant[key]
    assert not isinstance(spec, NoExplanation)
    arrays = load_file(EXPLAINERS / dataset / f"{key}.safetensors")
    return spec, Module(arrays["module.weight"], arrays["module.bias"])


def told_of(explained: Explained, dataset: str, settings: Settings) -> list[Any]:
    """Whatever decides a byte of a map, for `content_key`: images, weights, code, versions, device."""
    paths = [BACKBONES / f"{dataset}.safetensors", HEADS / f"{dataset}.safetensors"]
    told: list[Any] = [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
    told += [hashlib.sha256(explained.images.cpu().numpy().tobytes()).hexdigest(), explained.numbers.tolist()]
    told += [asdict(settings.dataset[dataset].backbone), str(choose_device()), torch.__version__, version("timm")]
    return told + [Path(code.__file__ or "").read_text() for code in (backbones, occlusion, patches)]
