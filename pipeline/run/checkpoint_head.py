"""The head of the checkpoint of a dataset with `classifier: own`."""

from unicodedata import normalize

import torch

from bla.base.errors import BlaError
from bla.method.modules import CHECKPOINT_HEAD, Head
from bla.own_classifier.labels import read_labels
from pipeline.artifacts.arrays import load_arrays
from pipeline.artifacts.models import BACKBONES
from pipeline.artifacts.tables import load_classes
from pipeline.run.environment import data_path


def checkpoint_head(dataset: str, labels: str | None) -> Head:
    """The head of the checkpoint (R = 1), with its outputs in the order of the images' classes.

    `labels` is the entry's `classifier_labels`: a file with the class of each output, None if they are sorted. Raises
    BlaError if there are not as many outputs as classes, or if the labels are not the classes.
    """
    path, remedy = BACKBONES / f"{dataset}.safetensors", f"dvc repro backbone@{dataset}"
    arrays = load_arrays(path, remedy)
    weight, bias = (torch.from_numpy(arrays[f"{CHECKPOINT_HEAD}{name}"]) for name in ("weight", "bias"))
    order = _order_of_outputs(dataset, len(weight), labels)
    return Head(weight[order][None], bias[order][None])


def _order_of_outputs(dataset: str, outputs: int, labels: str | None) -> list[int]:
    """For each class of the images, the number of the output that scores it."""
    key = f"params.yaml: dataset.{dataset}.classifier"
    classes = _composed(load_classes(dataset), f"params.yaml: dataset.{dataset}.images: the class")
    if outputs != len(classes):
        raise BlaError(
            f"{key}: the head of the checkpoint has {outputs} outputs, but the images have {len(classes)} classes "
            f"({_some(classes)}); name a checkpoint of these classes, use images of all its classes, or set classifier to "
            "trained_here"
        )
    if labels is None:
        return list(range(outputs))
    named = _composed(read_labels(data_path(labels)), f"{key}_labels: {labels}:")
    if len(named) != outputs:
        raise BlaError(f"{key}_labels: {labels} has {len(named)} lines for {outputs} outputs; write one class a line")
    if unknown := sorted(set(classes) - set(named)):
        others = _some(sorted(set(named) - set(classes)))
        raise BlaError(
            f"{key}_labels: {labels} has no {_some(unknown)}, but {others}; use the names of the images' classes"
        )
    return [named.index(name) for name in classes]


def _composed(names: list[str], place: str) -> list[str]:
    """The names with é as one letter, which some systems store as e and an accent; BlaError if two are then equal."""
    composed = [normalize("NFC", name) for name in names]
    if doubled := [name for name in composed if composed.count(name) > 1]:
        raise BlaError(
            f"{place} {doubled[0]} is listed twice (accents may be stored in two ways); give each class one name"
        )
    return composed


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if names[5:] else "")
