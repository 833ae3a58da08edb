"""Explain images with several methods; the result is one record.

record = explain(classifier, "photos", ["cam", with_settings("lime", patterns=500), module])
"""

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from bla.base.errors import BlaError
from bla.explainers.interface import Explainer, Sets, StructuredExplainer
from bla.explainers.learned.attention import Attention
from bla.method.equations import hard_explanation, hard_weights, largest_cells, logits_of
from bla.method.modules import Head
from bla.metrics.measure import few_cells
from bla.networks.backbones import Extractor
from bla.networks.classifier import Classifier
from bla.networks.patches import batch_size_for, cell_means
from bla.own_classifier.fitting import FittedMethod
from bla.own_classifier.methods import Method, with_settings
from bla.own_classifier.modules import scores_of_equal_cells
from bla.own_classifier.photos import Images, Photos, hidden, read_photos
from bla.own_classifier.record import ExplanationRecord, MethodResult
from bla.own_classifier.transform import check_images
from bla.own_classifier.wrap import OwnClassifier, check_wrapped
from bla.runtime.seeds import derive_seed

MethodInput = str | type[Explainer] | Method | FittedMethod


class WatchedClassifier(Classifier):
    """A classifier that tells how many images go through its backbone."""

    def __init__(self, classifier: Classifier, watch: Callable[[int], object]) -> None:
        super().__init__(classifier.extractor, classifier.tail, classifier.scores)
        self.watch = watch
        self.eval()

    def features_by(self, work: Callable[[Tensor], Tensor], items: Tensor) -> Tensor:
        """The feature maps, after which `watch` is called with their number."""
        features = super().features_by(work, items)
        self.watch(len(items))
        return features


class OneMap(nn.Module):
    """A backbone that gives the same map for every image, at once."""

    def __init__(self, features: Tensor, extractor: Extractor) -> None:
        super().__init__()
        self.features, self.mean, self.divisor = features, extractor.mean, extractor.divisor

    def feature_map(self, images: Tensor) -> Tensor:
        """That map for images `[B, H, W, 3]`, plus what lets gradients flow."""
        return self.features.expand(len(images), -1, -1, -1) + 0 * images.float().mean()


class CountingClassifier(Classifier):
    """A classifier without its backbone, to count the forward passes of a method."""

    def __init__(self, own: OwnClassifier) -> None:
        extractor = cast(Extractor, own.classifier.extractor)
        image = own.preparation.pixels(check_images()[0])[None].to(own.classifier.device)
        with torch.no_grad():
            features = extractor.feature_map(image)
        super().__init__(OneMap(features, extractor), own.classifier.tail, own.classifier.scores)
        self.image = image
        self.eval()


def as_method(given: MethodInput) -> Method | FittedMethod:
    """A method that can explain; BlaError for a learned one that is not fitted."""
    if isinstance(given, FittedMethod):
        return given
    method = given if isinstance(given, Method) else with_settings(given)
    if method.explainer.learned:
        raise BlaError(
            f"{method.name} must be fitted before it explains: fit(classifier, data, {method.name!r}), or bla fit"
        )
    return method


def name_of(method: Method | FittedMethod) -> str:
    """The method's name."""
    return method.method.name if isinstance(method, FittedMethod) else method.name


def passes(own: OwnClassifier, method: Method | FittedMethod) -> int:
    """How many images a method sends through the backbone for one map."""
    counting = CountingClassifier(own)
    explainer = _built(own, method, counting)
    _explain_batch(
        explainer,
        _runs(method),
        counting.image,
        torch.zeros(1, dtype=torch.long, device=counting.device),
        torch.tensor([0]),
    )
    return counting.forwards


def explain(
    own: OwnClassifier,
    images: Images | Photos,
    methods: Sequence[MethodInput],
    *,
    target: str = "predicted",
    seed: int = 0,
    progress: bool = True,
) -> ExplanationRecord:
    """Explain images with methods: names, classes, methods with settings, and fitted ones.

    `target`: each image's `predicted` or `expected` class, or the name of one class. Random methods draw from `seed` and
    the image's name, so that an image has the same map in any folder. Raises BlaError for an unreadable image, an unknown
    or unfitted method, a method that does not suit the classifier, and a missing expected class.
    """
    check_wrapped(own)
    chosen = [as_method(method) for method in ([methods] if isinstance(methods, str) else methods)]
    names = [name_of(method) for method in chosen]
    if len(set(names)) < len(names):
        raise BlaError(f"methods: {max(names, key=names.count)} is listed twice")
    explainers = [_built(own, method, own.classifier) for method in chosen]  # errors before the work
    photos = images if isinstance(images, Photos) else read_photos(own, images, progress)
    features, logits = _forward(own, photos.pixels)
    predicted = logits.argmax(dim=1).numpy()
    targets = _targets(own, photos, predicted, target)
    results = {}
    for name, method, explainer in zip(names, chosen, explainers, strict=True):
        maps, sets = _maps(own, method, photos, torch.from_numpy(targets), derive_seed(seed, name), progress)
        hard, scores = _explained(own, explainer, maps, sets, features)
        settings = method.method.settings if isinstance(method, FittedMethod) else method.settings
        probabilities = own.classifier.probabilities(scores.double()).numpy()
        results[name] = MethodResult(
            method.title, settings, maps.numpy(), hard.numpy(), probabilities, explainer.control
        )
    return ExplanationRecord(
        photos.names,
        own.labels,
        photos.pixels.round().to(torch.uint8).numpy(),
        targets,
        predicted,
        photos.expected,
        own.classifier.probabilities(logits.double()).numpy(),
        results,
        seed,
        own.fingerprint,
    )


def _runs(method: Method | FittedMethod) -> int:
    return method.runs if isinstance(method, FittedMethod) else 1


def _built(own: OwnClassifier, method: Method | FittedMethod, classifier: Classifier) -> Any:
    """The method on a classifier that has the weights of the wrapped one."""
    if isinstance(method, FittedMethod):
        return method.build(own, classifier)
    try:
        return method.explainer(classifier, method.settings)
    except BlaError as error:
        raise BlaError(f"{method.name}: {error}; leave it out") from error


@torch.no_grad()
def _forward(own: OwnClassifier, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Features `[N, n, C]` and logits `[N, K]`, on the CPU."""
    features, logits = [], []
    for part in pixels.split(batch_size_for(own.classifier.device, pixels.shape[1:3])):
        maps = own.classifier.features(part.to(own.classifier.device))
        logits.append(own.classifier.logits(maps)[0].cpu())
        features.append(maps.flatten(2).transpose(1, 2).float().cpu())
    return torch.cat(features), torch.cat(logits)


def _targets(own: OwnClassifier, photos: Photos, predicted: NDArray[np.int64], target: str) -> NDArray[np.int64]:
    if target == "predicted":
        return predicted
    if target != "expected":
        return np.full(len(predicted), own.label_number(target))
    if (photos.expected < 0).any():
        name = photos.names[int((photos.expected < 0).argmax())]
        raise BlaError(
            f"{name}: its class is unknown; put it in a folder named after its class, or explain the predicted one"
        )
    return photos.expected


def _maps(
    own: OwnClassifier, method: Method | FittedMethod, photos: Photos, targets: Tensor, seed: int, progress: bool
) -> tuple[Tensor, Sets]:
    """Maps `[R, N, h, w]` in double precision, on the CPU, and for each image the sets, if the method has any."""
    runs, device = _runs(method), own.classifier.device
    kind = method.method.explainer if isinstance(method, FittedMethod) else method.explainer
    size = 1 if kind.slow else batch_size_for(device, photos.pixels.shape[1:3])
    seeds = torch.tensor([derive_seed(seed, name) for name in photos.names])
    total = len(photos.names) * (passes(own, method) if kind.slow else 1)
    maps: list[Tensor] = []
    sets: Sets = []
    with tqdm(total=total, desc=name_of(method), unit="pass", disable=hidden(progress), leave=False) as bar:
        explainer = _built(own, method, WatchedClassifier(own.classifier, bar.update))
        for rows in torch.arange(len(photos.names)).split(size):
            pixels, of_rows = photos.pixels[rows].to(device), targets[rows].to(device)
            values, of_images = _explain_batch(explainer, runs, pixels, of_rows, seeds[rows])
            sets += of_images
            maps.append(values.detach().double().cpu())
    result = torch.cat(maps, dim=1)
    expected = (runs, len(photos.names))
    if result.ndim != 4 or tuple(result.shape[:2]) != expected:
        raise BlaError(f"{name_of(method)}: maps have shape {list(result.shape)}; see check_explainer")
    for name, finite in zip(photos.names, result.isfinite().all(dim=0).flatten(1).all(dim=1).tolist(), strict=True):
        if not finite:
            raise BlaError(
                f"{name_of(method)}: the map of {name} is not finite; check the classifier's weights, and the method "
                "with check_explainer"
            )
    return result, sets


def _explain_batch(
    explainer: Explainer, runs: int, pixels: Tensor, targets: Tensor, seeds: Tensor
) -> tuple[Tensor, Sets]:
    """Maps `[R, B, h, w]` of a batch, and its sets, if the method has any."""
    if isinstance(explainer, StructuredExplainer):
        values, sets = explainer.explain_with_sets(pixels, targets, seeds)
        return values[None], sets
    if explainer.all_runs:
        return explainer.explain_runs(pixels, targets.expand(runs, -1), seeds), []
    return explainer.explain(pixels, targets, seeds)[None], []


@torch.no_grad()
def _explained(
    own: OwnClassifier, explainer: Explainer, maps: Tensor, sets: Sets, features: Tensor
) -> tuple[Tensor, Tensor]:
    """Hard explanations bool `[R, N, rows, columns]`, and logits `[R, N, K]` with their cells alone.

    A module's own cells with its own head; for other methods the first set, or the most important cells, 8 of 49. The
    layers after the map see a map in which every cell is the mean of the explained ones.
    """
    device, (runs, count, *_) = own.classifier.device, maps.shape
    head = None
    if isinstance(explainer, Attention):
        parts = [logits_of(explainer.settings, explainer.module(part.to(device))).cpu() for part in features.split(256)]
        hard = hard_explanation(explainer.settings, torch.cat(parts, dim=1))
        weights = hard_weights(explainer.settings, hard)
        if "head.weight" in explainer.state:
            head = Head(explainer.state["head.weight"], explainer.state["head.bias"])
    else:
        if sets:
            hard = torch.zeros(runs, count, own.grid[0] * own.grid[1], dtype=torch.bool)
            for row, of_image in enumerate(sets):
                hard[:, row, of_image[0]] = True
        else:
            cells = cell_means(maps.flatten(0, 1), own.grid).view(runs, count, -1)
            hard = largest_cells(cells, few_cells(cells.shape[2]))
        weights = hard / hard.sum(dim=-1, keepdim=True).clamp(min=1)
    pooled = torch.einsum("rbn,bnc->rbc", weights.float(), features).to(device)
    if head is not None:
        scores = head(pooled)
    else:
        scores = torch.stack([scores_of_equal_cells(own.classifier, of_run, own.grid) for of_run in pooled])
    return hard.view(runs, count, *own.grid), scores.cpu()
