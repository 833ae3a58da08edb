"""Learned methods on a wrapped classifier: fit them to a folder, a data loader or cached features, and save them.

cached = extract_features(classifier, "photos/train")     # or a DataLoader of (inputs, labels)
module = fit(classifier, cached, "bla_ph", runs=3)        # the classifier stays as it is
module.save(Path("bla_ph.safetensors"))
"""

import itertools
import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from bla.base.atomic import replacing
from bla.base.errors import BlaError
from bla.base.files import refuse_pipe
from bla.base.specs import Schedule
from bla.explainers.interface import LearnedExplainer, State, TrainingData
from bla.networks.classifier import Classifier
from bla.networks.patches import batch_size_for
from bla.own_classifier.methods import Method, checked, with_settings
from bla.own_classifier.modules import FrozenTailAttention
from bla.own_classifier.photos import hidden, read_photos
from bla.own_classifier.wrap import OwnClassifier, check_wrapped, versions
from bla.runtime.seeds import derive_seed

SCHEMA = "1"
LARGEST_HALF = 65504
MOST_RUNS = 1000
"""As `runs` in params.yaml."""


@dataclass(frozen=True, eq=False)
class CachedFeatures:
    """Features `[N, n, C]` in half precision of N images, their `labels` int64 `[N]` or multi-hot bool `[N, K]`.

    `pixels` uint8 `[N, H, W, 3]` are the inputs, which only some methods need (L-CAM-Img), or None. `fingerprint` is that
    of the classifier that they were extracted with, or None if that is not known.
    """

    features: Tensor
    labels: Tensor
    pixels: NDArray[np.uint8] | None = None
    fingerprint: str | None = None


@dataclass(frozen=True, eq=False)
class FittedMethod:
    """A learned method of R runs: its `state`, tensors with a leading dimension R, and the classifier it belongs to."""

    method: Method
    state: State
    fingerprint: str

    @property
    def runs(self) -> int:
        """How many runs it has."""
        return len(next(iter(self.state.values())))

    @property
    def title(self) -> str:
        """The method's title; it says if only a part of the images was used."""
        return self.method.title if self.method.is_variant else self.method.explainer.title_of(self.state)

    def build(self, own: OwnClassifier, classifier: Classifier) -> LearnedExplainer:
        """The method on `classifier`, which has the weights of `own`; BlaError if it was fitted to another one."""
        if own.fingerprint != self.fingerprint:
            raise BlaError(
                f"{self.method.name}: fitted to another classifier, or with another normalisation, input size or kind of scores; fit it again"
            )
        kind = (
            FrozenTailAttention if self.method.is_variant and "head.weight" not in self.state else self.method.explainer
        )
        explainer: LearnedExplainer = kind(classifier, self.method.settings)  # type: ignore[assignment]
        return explainer.load(self.state)

    def save(self, path: Path | str) -> None:
        """Write a safetensors file with the settings in its metadata."""
        about = {"schema": SCHEMA, "method": self.method.name, "settings": json.dumps(asdict(self.method.settings))}
        about |= {"fingerprint": self.fingerprint, "versions": json.dumps(versions())}
        with replacing(Path(path)) as part:
            save_file({name: value.contiguous() for name, value in self.state.items()}, part, metadata=about)


def load_fitted(path: Path | str) -> FittedMethod:
    """Read what `FittedMethod.save` wrote; BlaError for a file that it did not write."""
    try:
        refuse_pipe(Path(path))
        with safe_open(path, "pt") as file:
            about = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, ValueError, SafetensorError) as error:
        raise BlaError(f"{path}: not a readable file of a fitted method ({error}); run bla fit") from error
    if about.get("schema") != SCHEMA:
        raise BlaError(f"{path}: not written by bla fit, or by another version; run bla fit")
    return FittedMethod(with_settings(about["method"], **json.loads(about["settings"])), state, about["fingerprint"])


def extract_features(own: OwnClassifier, data: Any, progress: bool = True) -> CachedFeatures:
    """The features of a folder with a subfolder for each class, of pairs (image, label), or of a data loader.

    A loader gives batches of inputs `[B, 3, H, W]`, transformed as for the classifier, with labels `[B]` or multi-hot
    `[B, K]`. Labels of pairs are names or numbers. Raises BlaError for an unknown class and for inputs of another size.
    """
    check_wrapped(own)
    if isinstance(data, CachedFeatures):
        return data
    if isinstance(data, torch.utils.data.DataLoader):
        return _of_loader(own, data, progress)
    if isinstance(data, str | Path):
        return _of_folder(own, Path(data), progress)
    pairs = list(data)
    labels = [own.label_number(label) if isinstance(label, str) else int(label) for _, label in pairs]
    photos = read_photos(own, [image for image, _ in pairs], progress)
    return _of_pixels(own, photos.pixels, torch.tensor(labels), progress)


def _of_pixels(own: OwnClassifier, pixels: Tensor, labels: Tensor, progress: bool) -> CachedFeatures:
    """The features of inputs `[N, H, W, 3]` in [0, 255] with these labels."""
    size = batch_size_for(own.classifier.device, pixels.shape[1:3])
    parts = [
        _features(own, own.classifier.features(part.to(own.classifier.device)))
        for part in tqdm(pixels.split(size), "features", unit="batch", disable=hidden(progress), leave=False)
    ]
    inputs = pixels.round().to(torch.uint8).numpy()
    return CachedFeatures(torch.cat(parts), _checked_labels(own, labels), inputs, own.fingerprint)


def _of_folder(own: OwnClassifier, folder: Path, progress: bool) -> CachedFeatures:
    if not folder.is_dir():
        raise BlaError(f"{folder}: no such folder; it must hold a folder of images for each class")
    photos = read_photos(own, folder, progress)
    unknown = sorted(
        {name.rpartition("/")[0] for name, label in zip(photos.names, photos.expected, strict=True) if label < 0}
    )
    if unknown:
        raise BlaError(
            f"{folder}: {', '.join(repr(name) for name in unknown[:5])} are not classes of the classifier ({', '.join(own.labels[:10])}); "
            "name the folders like its labels, or its labels like the folders"
        )
    folders = {name.rpartition("/")[0]: label for name, label in zip(photos.names, photos.expected, strict=True)}
    for one, other in itertools.combinations(sorted(folders), 2):  # such as train/cat and test/cat
        if folders[one] == folders[other]:
            raise BlaError(
                f"{folder}: {one} and {other} are of one class; name the folder with the training photographs alone, which holds "
                "one folder for each class"
            )
    if len(present := np.unique(photos.expected)) < 2:
        raise BlaError(
            f"{folder}: only photographs of {own.labels[present[0]]}; name the folder that holds a folder for each class"
        )
    return _of_pixels(own, photos.pixels, torch.from_numpy(photos.expected), progress)


@torch.no_grad()
def _of_loader(own: OwnClassifier, loader: Iterable[Any], progress: bool) -> CachedFeatures:
    features, labels, pixels = [], [], []
    for batch in tqdm(loader, "features", unit="batch", disable=hidden(progress), leave=False):
        if not (
            isinstance(batch, list | tuple) and len(batch) == 2 and all(isinstance(part, Tensor) for part in batch)
        ):
            raise BlaError("the data loader must give pairs of tensors (inputs, labels)")
        inputs, of_batch = batch
        if inputs.ndim != 4 or tuple(inputs.shape[1:]) != (3, *own.preparation.size):
            expected = [3, *own.preparation.size]
            raise BlaError(f"the data loader gives inputs of {list(inputs.shape[1:])}, the transform {expected}")
        features.append(_features(own, own.network.features(inputs.to(own.classifier.device).float())))
        labels.append(of_batch)
        pixels.append(own.preparation.unnormalised(inputs))
    if not features:
        raise BlaError("the data loader is empty")
    checked = _checked_labels(own, torch.cat(labels))
    return CachedFeatures(torch.cat(features), checked, torch.cat(pixels).numpy(), own.fingerprint)


@torch.no_grad()
def _features(own: OwnClassifier, maps: Tensor) -> Tensor:
    """Half-precision features `[B, n, C]` on the CPU; BlaError if they do not fit."""
    if not maps.abs().max() <= LARGEST_HALF:  # also if NaN
        raise BlaError("the feature map holds NaN or exceeds half precision (65,504); is the transform the right one?")
    return maps.flatten(2).transpose(1, 2).half().cpu()


def _checked_labels(own: OwnClassifier, labels: Tensor) -> Tensor:
    """Class numbers, or, for sigmoid scores, multi-hot labels; BlaError if they are neither."""
    classes, several = len(own.labels), own.classifier.scores == "sigmoid"
    if several and labels.ndim == 2 and labels.shape[1] == classes and ((labels == 0) | (labels == 1)).all():
        return labels.bool()
    if labels.ndim != 1 or labels.is_floating_point() or not (int(labels.min()) >= 0 and int(labels.max()) < classes):
        others = f", or [images, {classes}] of zeros and ones" if several else "; several an image need sigmoid scores"
        raise BlaError(f"labels must be numbers from 0 to {classes - 1}{others}")
    if several:
        return torch.nn.functional.one_hot(labels, classes).bool()
    return labels.long()


def fit(
    own: OwnClassifier,
    data: Any,
    method: str | Method = "bla_ph",
    *,
    runs: int = 3,
    seed: int = 0,
    epochs: int = 20,
    batch_size: int = 32,
    learning_rate: float = 1e-3,
    dropout: float = 0.2,
    progress: bool = True,
) -> FittedMethod:
    """Fit a learned method in several runs to the classifier; `data` as for `extract_features`, or what that returned.

    `bla_ph` leaves the head as it is; `bla`, `bla_t` and `l2x_f` train it further, beside the module. The schedule is that
    of the paper (section 4.2), with more epochs, for few images; other learned methods have epochs and learning rates in
    their settings. Bounds are those of params.yaml. Raises BlaError for a setting outside them, if the method is not
    learned or does not suit the classifier, or if the data do not.
    """
    if not isinstance(runs, Integral) or not all(
        isinstance(number, Real) for number in (epochs, batch_size, learning_rate, dropout)
    ):
        raise BlaError("runs must be a whole number; epochs, batch_size, learning_rate and dropout must be numbers")
    if min(runs, epochs, batch_size) < 1 or not (0 < learning_rate < math.inf and 0 <= dropout < 1):
        raise BlaError(
            "runs, epochs and batch_size must be at least 1, learning_rate above 0, and dropout from 0 to less than 1"
        )
    if runs > MOST_RUNS:
        raise BlaError(f"fit: runs: at most {MOST_RUNS:,}, not {runs:,}")
    given = {"batch_size": batch_size, "epochs": epochs, "learning_rate": learning_rate, "dropout": dropout}
    schedule = checked("fit", Schedule, given | {"adam_epsilon": 1e-7})
    chosen = check_fit(own, method)
    cached = extract_features(own, data, progress)
    training = _training_data(own, cached, schedule)
    explainer = _unfitted(own, chosen)
    seeds = [derive_seed(seed, chosen.name, run) for run in range(runs)]
    states = []
    for one in tqdm(seeds, f"fit {chosen.name}", unit="run", disable=hidden(progress), leave=False):
        states.append(explainer.fit(training, [one]))
    return FittedMethod(
        chosen, {name: torch.cat([state[name] for state in states]) for name in states[0]}, own.fingerprint
    )


def check_fit(own: OwnClassifier, method: str | Method) -> Method:
    """The method; BlaError if it is not learned, or does not suit the classifier."""
    check_wrapped(own)
    chosen = with_settings(method) if isinstance(method, str) else method
    if not chosen.explainer.learned:
        raise BlaError(f"{chosen.name} needs no fitting; pass it to explain")
    _unfitted(own, chosen)
    return chosen


def _training_data(own: OwnClassifier, cached: CachedFeatures, schedule: Schedule) -> TrainingData:
    if cached.fingerprint not in (None, own.fingerprint):
        raise BlaError("the cached features are those of another classifier, or kind of scores; extract them again")
    cells, shape = own.grid[0] * own.grid[1], list(cached.features.shape)
    if len(shape) != 3 or shape[1] != cells or len(cached.labels) != shape[0]:
        raise BlaError(f"cached features must be [images, {cells}, channels] with a label each, not {shape}")
    labels = _checked_labels(own, cached.labels)
    return TrainingData(cached.features[None], own.grid, cached.pixels, labels, schedule, own.classifier.device)


def _unfitted(own: OwnClassifier, method: Method) -> LearnedExplainer:
    kind: Any = method.explainer
    if method.is_variant:
        try:
            own.classifier.linear_head()
        except BlaError:
            kind = FrozenTailAttention
    explainer: LearnedExplainer = kind(own.classifier, method.settings)
    return explainer
