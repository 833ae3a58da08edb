"""What the explanation browser shows of a dataset: every test image, the variants' maps, and the other methods' where they exist."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bla.base.paper import COLUMNS
from bla.method.equations import hard_explanation, logits_of, soft_weights
from bla.method.evaluation import scores_on_hard_explanation
from bla.method.modules import EVALUATION_CHUNK, Head
from bla.method.scores import Scores, correct, loss_as, probabilities, scores_of
from bla.networks.backbones import load_backbone
from bla.networks.folding import fold_batch_norm
from bla.report.browser.records import Collection, Method, Predictions, mean_distance
from pipeline.artifacts.arrays import load_arrays
from pipeline.artifacts.explained_images import load_classifier, scores_from_features
from pipeline.artifacts.features import explained_features, load_features, load_grid
from pipeline.artifacts.images import class_names, load_images, load_labels
from pipeline.artifacts.maps import MAPS, cell_maps
from pipeline.artifacts.models import BACKBONES, load_variant
from pipeline.artifacts.tables import load_table
from pipeline.maps.image_names import image_names
from pipeline.run.environment import choose_device
from pipeline.run.settings import Settings


def browsed(dataset: str, settings: Settings) -> Collection:
    """All test images with the maps of all methods, of the run `faithfulness.run`."""
    methods = [_variant(dataset, key, settings) for key in settings.variants] + _other_methods(dataset, settings)
    return Collection(
        name=dataset,
        images=load_images(dataset, "test"),
        files=image_names(dataset),
        classes=class_names(dataset),
        labels=load_labels(dataset, "test"),
        methods=methods,
    )


@torch.no_grad()
def _variant(dataset: str, key: str, settings: Settings) -> Method:
    """Soft weights, kept cells and predictions of one run, and the spread of the soft weights over all runs."""
    device, run = choose_device(), settings.faithfulness.run
    features, labels = explained_features(dataset), load_features(dataset, "test")[1]
    spec, head, module = load_variant(dataset, key, settings)
    module, one_head = module.to(device), Head(head.weight[run : run + 1], head.bias[run : run + 1]).to(device)
    parts = []
    for part in features.split(EVALUATION_CHUNK):
        x = part.float().to(device)
        logits = logits_of(spec, module(x))
        soft, hard = soft_weights(logits.double(), spec.temperature), hard_explanation(spec, logits[run : run + 1])
        scores = scores_on_hard_explanation(x, spec, one_head, module.run(run))
        parts.append([values.cpu() for values in (soft, hard, scores)])
    soft, hard, scores = (torch.cat(values, dim=1) for values in zip(*parts, strict=True))
    maps = soft.unflatten(2, load_grid(dataset)).numpy()
    return Method(
        name=key,
        title=COLUMNS.get(key, key),
        maps=maps[run],
        predictions=_predictions(scores[0], labels, scores_of(labels)),
        kept=hard[0].unflatten(1, load_grid(dataset)).numpy(),
        spread=mean_distance(maps),
    )


def _other_methods(dataset: str, settings: Settings) -> list[Method]:
    """The maps of the stage `maps`, as means over cells: NaN for images that a method did not explain."""
    arrays, table, grid = (
        load_arrays(MAPS / f"{dataset}.safetensors"),
        load_table(MAPS / f"{dataset}.csv"),
        load_grid(dataset),
    )
    predictions, numbers = _classifier(dataset, settings), arrays["images"]

    def of_all(values: NDArray[np.float64]) -> NDArray[np.float64]:
        every = np.full((len(predictions.classes), *grid), np.nan)
        every[numbers] = values.reshape(-1, *grid)
        return every

    explained = predictions.classes.copy()
    explained[numbers] = arrays["targets"]
    cells, methods = cell_maps(arrays, grid), []
    for row in table[~table["method"].isin(settings.variants)].itertuples():
        runs = arrays.get(f"runs/{row.method}")
        spread = np.full(len(explained), np.nan)
        if runs is not None:
            spread[numbers] = mean_distance(runs.reshape(*runs.shape[:2], *grid))
        maps, name = of_all(cells[str(row.method)]), str(row.method)
        methods.append(Method(name, str(row.title), maps, predictions, None, explained, spread, bool(row.control)))
    return methods


@torch.no_grad()
def _classifier(dataset: str, settings: Settings) -> Predictions:
    """The predictions of the classifier that the other methods explain, on all test images."""
    device, run = choose_device(), settings.faithfulness.run
    features, labels = explained_features(dataset), load_features(dataset, "test")[1]
    _, height, width, _ = load_images(dataset, "test").shape
    backbone = load_backbone(settings.dataset[dataset].backbone, BACKBONES / f"{dataset}.safetensors", (height, width))
    classifier = load_classifier(dataset, settings, fold_batch_norm(backbone)).to(device).eval()
    classifier = classifier.run(run if classifier.runs > 1 else 0)
    scores = scores_from_features(classifier, features, load_grid(dataset))[0]
    return _predictions(scores, labels, classifier.scores)


def _predictions(scores: Tensor, labels: Tensor, kind: Scores) -> Predictions:
    """The predictions of class scores `[N, K]`."""
    probable, classes = probabilities(scores.double(), kind).max(dim=1)
    losses, right = loss_as(kind, scores.double(), labels), correct(scores, labels)
    return Predictions(classes.numpy(), probable.numpy(), losses.numpy(), right.numpy())
