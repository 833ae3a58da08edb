"""What each column of Table 1 predicts for some test images, in run 0."""

import numpy as np
import torch
from numpy.typing import NDArray

from bla.base.specs import NoExplanation, Variant
from bla.experiments.explanations.figures import Predictions
from bla.method.evaluation import scores_on_hard_explanation
from bla.method.modules import Head, Module
from bla.method.scores import correct, probabilities, scores_of
from pipeline.artifacts.features import load_features
from pipeline.artifacts.images import captions
from pipeline.artifacts.models import load_head, load_variant
from pipeline.run.settings import Settings


def predictions_of(dataset: str, settings: Settings, numbers: NDArray[np.int64]) -> dict[str, Predictions]:
    """By column, BL first: the most probable class of each image as a caption, its probability, and whether it is right."""
    features, labels = load_features(dataset, "test")
    chosen = torch.from_numpy(np.asarray(numbers))
    features, labels = features[chosen].float(), labels[chosen]
    columns: dict[str, tuple[Variant, Head, Module | None]] = {
        "bl": (NoExplanation(explanation="none"), load_head(dataset), None),
        **{key: load_variant(dataset, key, settings) for key in settings.variants},
    }
    names = [name.replace("\n", " ") for name in captions(dataset)]
    found: dict[str, Predictions] = {}
    for key, (variant, head, module) in columns.items():
        of_run = Head(head.weight[:1], head.bias[:1]), None if module is None else module.run(0)
        scores = scores_on_hard_explanation(features, variant, *of_run)
        probable, classes = probabilities(scores[0], scores_of(labels)).max(dim=1)
        right = correct(scores, labels)[0].numpy()
        found[key] = [names[number] for number in classes.tolist()], probable.double().numpy(), right
    return found
