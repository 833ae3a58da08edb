"""What each column of Table 1 keeps of some test images, and predicts from it, in the run `faithfulness.run`."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bla.base.specs import NoExplanation, Variant
from bla.experiments.explanations.figures import Predictions
from bla.method.evaluation import evaluate, scores_on_hard_explanation
from bla.method.modules import Head, Module, Trained
from bla.method.scores import correct, probabilities, scores_of
from bla.runtime.seeds import derive_seed
from pipeline.artifacts.features import explained_features, load_features, load_grid
from pipeline.artifacts.images import captions
from pipeline.artifacts.models import load_head, load_variant
from pipeline.run.settings import Settings

Maps = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]
"""Logits, soft weights and hard explanation (0 or 1), `[M, h, w]` each."""


def maps_of(dataset: str, settings: Settings, numbers: Sequence[int]) -> dict[str, Maps]:
    """By variant, the explanations of these test images."""
    features, labels = explained_features(dataset, numbers), load_features(dataset, "test")[1][torch.as_tensor(numbers)]
    run, grid, found = settings.faithfulness.run, load_grid(dataset), dict[str, Maps]()
    for key in settings.variants:
        variant, head, module = load_variant(dataset, key, settings)
        trained = Trained(_of_run(head, run), module.run(run), torch.zeros(1, 1))
        explained = evaluate(
            features, labels, variant, trained, [derive_seed(settings.seed, dataset, key, run)]
        ).explained
        assert explained is not None
        values = (explained.logits, explained.soft, explained.hard)
        logits, soft, hard = (of_runs[0].double().numpy().reshape(-1, *grid) for of_runs in values)
        found[key] = logits, soft, hard
    return found


def predictions_of(dataset: str, settings: Settings, numbers: Sequence[int]) -> dict[str, Predictions]:
    """By column, BL first: the most probable class of each image as a caption, its probability, and whether it is right."""
    labels = load_features(dataset, "test")[1][torch.as_tensor(numbers)]
    names = [name.replace("\n", " ") for name in captions(dataset)]
    found: dict[str, Predictions] = {}
    for key, scores in _scores(dataset, settings, numbers).items():
        probable, classes = probabilities(scores, scores_of(labels)).max(dim=1)
        right = correct(scores[None], labels)[0].numpy()
        found[key] = [names[number] for number in classes.tolist()], probable.double().numpy(), right
    return found


def decided_classes(dataset: str, settings: Settings) -> dict[str, NDArray[np.int64]]:
    """By column, BL first: the class `[N]` with the highest score, of every test image."""
    numbers = range(len(load_features(dataset, "test")[1]))
    return {key: scores.argmax(dim=1).numpy() for key, scores in _scores(dataset, settings, numbers).items()}


def _scores(dataset: str, settings: Settings, numbers: Sequence[int]) -> dict[str, Tensor]:
    """By column, BL first: the class scores `[M, K]` of these test images, on hard explanations."""
    features, run = explained_features(dataset, numbers).float(), settings.faithfulness.run
    columns: dict[str, tuple[Variant, Head, Module | None]] = {
        "bl": (NoExplanation(explanation="none"), load_head(dataset), None),
        **{key: load_variant(dataset, key, settings) for key in settings.variants},
    }
    found: dict[str, Tensor] = {}
    for key, (variant, head, module) in columns.items():
        of_run = _of_run(head, run), None if module is None else module.run(run)
        found[key] = scores_on_hard_explanation(features, variant, *of_run)[0]
    return found


def _of_run(head: Head, run: int) -> Head:
    """The head of one run; an own classifier has one head for all runs."""
    run = min(run, len(head.weight) - 1)
    return Head(head.weight[run : run + 1], head.bias[run : run + 1])
