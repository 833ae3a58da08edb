"""A trained classifier of one's own as the `Classifier` that all methods explain, with its own head and transform.

    classifier = wrap(model.eval(), weights.transforms(), labels)                 # torchvision, timm, or traceable
    classifier = wrap(model.eval(), transform, labels, features=lambda model, pixels: model.body(pixels))

The feature map is found: timm says it, `torch.fx` finds it in other models (`bla.networks.sources.split`), or a
function of one's own gives it. Four images then go both ways, and every step must agree with `model(transform(image))`.
"""

import copy
import hashlib
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, get_args

import torch
from torch import Tensor, nn

from bla.base.errors import BlaError
from bla.method.scores import Scores
from bla.networks.backbones import Extractor
from bla.networks.classifier import Classifier, OwnTail
from bla.networks.folding import fold_batch_norm
from bla.networks.patches import Grid
from bla.networks.sources import Network, SplitNetwork, TimmNetwork, no_map, split
from bla.own_classifier.transform import TOLERANCE, Preparation, check_images, prepare

ModelFunction = Callable[[nn.Module, Tensor], Tensor]
"""From the model and normalised pixels, or a feature map, to a feature map, or class scores."""


@dataclass(frozen=True)
class OwnClassifier:
    """A wrapped classifier: `classifier` of one run, the two parts of its transform, its K labels, its grid of cells.

    `fingerprint` is the SHA-256 of its weights, normalisation, input size and kind of scores; fitted methods belong to it.
    """

    classifier: Classifier
    preparation: Preparation
    labels: tuple[str, ...]
    grid: Grid
    fingerprint: str

    @property
    def network(self) -> Network:
        """The network, split at its feature map."""
        network: Network = self.classifier.extractor.network  # type: ignore[assignment]
        return network

    def label_number(self, label: str) -> int:
        """The number of a class by its label; BlaError if there is none."""
        if (number := self.find_label(label)) < 0:
            shown = ", ".join(self.labels[:10]) + (", ..." if self.labels[10:] else "")
            raise BlaError(f"the classifier has no class {label}; its classes are {shown}")
        return number

    def find_label(self, label: str) -> int:
        """The number of a class by its label, -1 if there is none. An accent may be a character of its own, as in macOS's names."""
        for labels, wanted in ((self.labels, label), (tuple(map(_composed, self.labels)), _composed(label))):
            if labels.count(wanted) == 1:
                return labels.index(wanted)
        return -1


def check_wrapped(own: object) -> None:
    """BlaError unless `wrap` made it."""
    if not isinstance(own, OwnClassifier):
        raise BlaError(f"needs what bla.wrap(model, transform, labels) returns, not a {type(own).__name__}")


def _composed(text: str) -> str:
    """The text with letters and accents as single characters."""
    return unicodedata.normalize("NFC", text)


def versions() -> dict[str, str]:
    """The versions of the packages that affect results."""
    return {name: version(name) for name in ("bla", "torch", "torchvision", "timm", "numpy")}


def class_names(labels: Iterable[object], classes: int) -> tuple[str, ...]:
    """The names of the classes; those that occur more than once get the number of the class, such as ImageNet's two cranes.

    Raises BlaError if there are more or fewer than `classes`, or if they are no list.
    """
    if isinstance(labels, str | Mapping):  # whose letters or keys would be the names
        raise BlaError(f"labels: must be a list of class names in the order of the scores, not {type(labels).__name__}")
    names = tuple(map(str, labels))
    if len(names) != classes:
        raise BlaError(f"labels: {len(names)} labels for a classifier of {classes} classes")
    times = Counter(names)
    return tuple(f"{name} ({number})" if times[name] > 1 else name for number, name in enumerate(names))


def wrap(
    model: nn.Module,
    transform: Callable[[Any], Any],
    labels: Sequence[str] | None = None,
    *,
    scores: Scores = "softmax",
    features: ModelFunction | None = None,
    tail: ModelFunction | None = None,
    device: torch.device | str | None = None,
) -> OwnClassifier:
    """Wrap a trained classifier that gives class scores (logits) `[B, K]`; the model itself is copied, not changed.

    `transform` makes an input tensor `[3, H, W]` of a PIL image. `labels` are the K class names (default: numbers); equal ones get their number.
    `scores` says how logits become probabilities. `features(model, pixels)` gives the feature map `[B, C, h, w]` where it
    is not found, `tail(model, features)` the logits of it (default: average pooling and the model's last linear layer).
    `device`: where it computes (default: that of the model). Raises BlaError if there is no feature map, or if a step
    disagrees with `model(transform(image))` by more than 1e-4 of the largest logit (at least 1).
    """
    if not isinstance(model, nn.Module):
        raise BlaError(f"the model must be a torch module, not {type(model).__name__}")
    if scores not in get_args(Scores):
        raise BlaError(f"scores: must be {' or '.join(get_args(Scores))}, not {scores}")
    if model.training:
        raise BlaError(
            "the model is in training mode, so that dropout and batch normalisation are on; call model.eval()"
        )
    if odd := {str(p.dtype) for p in model.parameters() if p.dtype != torch.float32}:
        raise BlaError(f"the model's weights are {', '.join(sorted(odd))}; call model.float()")
    preparation = prepare(transform)
    target = torch.device(device or next((p.device for p in model.parameters()), "cpu"))
    plain_model: nn.Module = getattr(model, "_orig_mod", model)  # of torch.compile
    copied = _copy(plain_model.module if isinstance(plain_model, nn.DataParallel) else plain_model)
    pixels = torch.stack([preparation.pixels(image) for image in check_images()])
    inputs = torch.stack([transform(image).float() for image in check_images()])
    _compare_pixels(preparation, pixels, inputs)
    reference = _logits(copied, inputs, scores)
    fingerprint = _fingerprint(copied, preparation, scores)
    network = _network(copied, features, tail, preparation.size)
    _compare_split(network, inputs, reference)
    plain = Extractor(network, (preparation.mean, preparation.std)).eval().requires_grad_(False)
    for extractor in (fold_batch_norm(plain), plain):
        classifier = Classifier(extractor, OwnTail(extractor.network), scores).eval()
        with torch.no_grad():
            error = _difference(classifier(pixels)[0], reference)
        if error <= TOLERANCE:
            break
    else:
        raise BlaError(f"normalise: the wrapped classifier differs from the model by {error:.2g} of its largest logit")
    with torch.no_grad():
        rows, columns = extractor.feature_map(pixels[:1]).shape[2:]
    if rows * columns < 2:
        raise BlaError("the feature map has one cell, so there is nothing to choose; enlarge the input")
    names = class_names(range(reference.shape[1]) if labels is None else labels, reference.shape[1])
    classifier.forwards = 0
    return OwnClassifier(classifier.to(target), preparation, names, (rows, columns), fingerprint)


class FunctionNetwork(Network):
    """A model whose feature map is given by functions."""

    def __init__(self, model: nn.Module, features: ModelFunction, tail: ModelFunction | None) -> None:
        super().__init__([model])
        self.features_of, self.tail_of = features, tail

    def features(self, pixels: Tensor) -> Tensor:
        """The map that the function gives."""
        return self.features_of(self.model, pixels)

    def tail(self, features: Tensor) -> Tensor:
        """The scores that the function gives, or the model's last linear layer on the mean over the cells."""
        if self.tail_of is not None:
            return self.tail_of(self.model, features)
        last = [layer for layer in self.model.modules() if isinstance(layer, nn.Linear)][-1:]
        if not last or last[0].in_features != features.shape[1]:
            raise BlaError("tail: the model has no last linear layer on the channels of its feature map; give tail=")
        scores: Tensor = last[0](features.mean(dim=(2, 3)))
        return scores


class TrainedTimm(TimmNetwork):
    """A timm model that is already there."""

    def __init__(self, model: nn.Module) -> None:
        Network.__init__(self, [model])


def _network(
    model: nn.Module, features: ModelFunction | None, tail: ModelFunction | None, size: tuple[int, int]
) -> Network:
    """The model, split at its feature map."""
    if features is not None:
        return FunctionNetwork(model, features, tail)
    if tail is not None:
        raise BlaError("tail: it is of use only with features=")
    if all(callable(getattr(model, name, None)) for name in ("forward_features", "forward_head")):
        return TrainedTimm(model)
    if all(callable(getattr(model, name, None)) for name in ("features", "tail")):
        return Network([model])
    try:
        return SplitNetwork(split(model, size), model)
    except BlaError as error:
        raise BlaError(f"feature map: {type(model).__name__} for inputs of {size[0]} x {size[1]}: {error}") from error
    except Exception as error:  # torch.fx raises many kinds
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BlaError(
            f"feature map: {type(model).__name__} cannot be traced ({reason}); give its feature map as a function: "
            "wrap(..., features=lambda model, pixels: ..., tail=lambda model, features: ...)"
        ) from error


def _copy(model: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(model).cpu().requires_grad_(False)
    except Exception as error:  # a lock, an open file, a graph
        raise BlaError(
            f"the model cannot be copied ({error}); remove what is not a weight or buffer from it"
        ) from error


@torch.no_grad()
def _logits(model: nn.Module, inputs: Tensor, scores: Scores) -> Tensor:
    """The model's own scores `[B, K]`; BlaError if they are no logits."""
    try:
        result = model(inputs)
    except Exception as error:  # the user's model may raise anything
        raise BlaError(
            f"input size: the model fails on inputs of {list(inputs.shape)} ({type(error).__name__}: {error})"
        ) from error
    if not isinstance(result, Tensor) or result.ndim != 2:
        shape = list(result.shape) if isinstance(result, Tensor) else type(result).__name__
        raise BlaError(f"head: the model must return class scores [images, classes], not {shape}")
    if result.shape[1] < (2 if scores == "softmax" else 1):
        raise BlaError("head: a single class score cannot be a softmax; set scores to sigmoid")
    if scores == "softmax" and result.min() >= 0 and (result.sum(dim=1) - 1).abs().max() < 1e-4:
        raise BlaError(
            "head: the model returns probabilities, which sum to 1; remove its last softmax, bla needs logits"
        )
    if not result.isfinite().all():
        raise BlaError("head: the model's class scores are not finite")
    return result


def _difference(result: Tensor, reference: Tensor) -> float:
    """The largest difference, as a share of the largest logit if that exceeds 1."""
    if result.shape != reference.shape:
        return float("inf")
    return float((result - reference).abs().max() / reference.abs().max().clamp(min=1))


@torch.no_grad()
def _compare_split(network: Network, inputs: Tensor, reference: Tensor) -> None:
    """Features and tail, one after the other, must give the model's logits."""
    features = _called(network.features, inputs, "feature map: features=")
    if not isinstance(features, Tensor) or features.ndim != 4:
        raise no_map(features if isinstance(features, Tensor) else None)
    if (error := _difference(_called(network.tail, features, "feature map: tail="), reference)) > TOLERANCE:
        raise BlaError(
            f"feature map: the layers up to the map, then those after it, differ from the model by {error:.2g} of its largest "
            "logit; give features= and tail= so that tail(model, features(model, pixels)) equals model(pixels)"
        )


def _called(function: Callable[[Tensor], Tensor], given: Tensor, place: str) -> Tensor:
    """The result of a function of the user; BlaError, which names it, if it fails."""
    try:
        return function(given)
    except BlaError:
        raise
    except Exception as error:  # the user's function may raise anything
        raise BlaError(f"{place} fails on a tensor of {list(given.shape)} ({type(error).__name__}: {error})") from error


def _compare_pixels(preparation: Preparation, pixels: Tensor, inputs: Tensor) -> None:
    """Normalised pixels must be the transformed images."""
    error = float((preparation.normalised(pixels) - inputs).abs().max())
    if error > TOLERANCE * max(1, float(inputs.abs().max())):
        raise BlaError(
            f"normalise: the transform differs by {error:.2g} from pixels minus a mean, divided by a number; bla needs a "
            "transform that treats all pixels alike"
        )


def _fingerprint(model: nn.Module, preparation: Preparation, scores: Scores) -> str:
    digest = hashlib.sha256(repr((preparation.mean, preparation.std, preparation.size, scores)).encode())
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(
            value.contiguous().view(torch.uint8).numpy().tobytes() if value.ndim else repr(value.item()).encode()
        )
    return digest.hexdigest()
