"""Masks of every method and of the controls on test images with several classes, measured with the classifiers of all runs."""

from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from bla.base.errors import BlaError
from bla.base.rounding import larger
from bla.datasets import spread_over_classes
from bla.experiments.related_methods.multi_label.experiment import (
    PERFECT,
    Array,
    Subjects,
    class_masks,
    control_masks,
    measure,
    over_runs,
    specificity,
)
from bla.experiments.related_methods.multi_label.tables import (
    comparisons,
    means,
    precision_by_class,
    specificity_rows,
)
from bla.experiments.runs import DID_NOT_TRAIN
from bla.explainers.interface import Explainer, LearnedExplainer, TrainingData
from bla.explainers.registry import explainer_class
from bla.networks.classifier import Classifier
from bla.runtime.seeds import derive_seed
from pipeline.artifacts.explained_images import scores_from_features
from pipeline.artifacts.multi_label import (
    LEARNED,
    class_names,
    has_mask_of_each_class,
    load_classifier,
    load_data,
    load_pictures,
    load_tensors,
)
from pipeline.maps.image_names import drawable
from pipeline.run.environment import choose_device
from pipeline.run.methods import method_settings
from pipeline.run.settings import Settings

DRAWN = 6
"""Pairs of image and class in the picture."""


@dataclass
class Measured:
    """The tables by file suffix, and what the pictures show: names, pairs of image and class, and matrices `[K, 1 + K]`."""

    names: list[str]
    images: NDArray[np.uint8]
    captions: list[str]
    masks: dict[str, Array] = field(default_factory=dict)
    matrices: dict[str, Array] = field(default_factory=dict)
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)


def measured(dataset: str, settings: Settings) -> Measured:
    """Measure all methods and controls; every value is a mean over the runs to which a method is fitted."""
    classifier, entry, names = load_classifier(dataset, settings), settings.dataset[dataset], class_names(dataset)
    numbers, subjects = _subjects(dataset, settings)
    seeds = torch.tensor([derive_seed(settings.seed, dataset, "multi_label", number) for number in numbers])
    rows, classes = (part[:DRAWN] for part in np.nonzero(subjects.present))
    shown = [drawable(name, f"class {label}") for label, name in enumerate(names)]
    found = Measured(shown, subjects.images.cpu().numpy()[rows], [shown[k].replace("_", "\n") for k in classes])
    data = _of_images(load_data(dataset, "test", settings), numbers)
    counts, objectives, every, matrix_rows = subjects.present.sum(axis=0).tolist(), [], [], []
    methods = [*settings.multi_label.explainers, *settings.multi_label.learned_explainers]
    controls, of_each = control_masks(subjects), {}
    for name in tqdm([*methods, *controls], f"{dataset} masks", disable=None):
        title, masks, own = f'"{name}"', {}, []
        if name in controls:
            masks = dict.fromkeys(range(classifier.runs), controls[name])
        else:
            explainers = _fitted(dataset, name, classifier, settings)
            own = _objectives(name, explainers, data)
            state = explainers[0].state if isinstance(explainers[0], LearnedExplainer) else None
            trained = all(row["trained"] for row in own)
            title = explainers[0].title_of(state) + ("" if trained else DID_NOT_TRAIN)
            masks = {run: class_masks(each, subjects.images, len(names), seeds) for run, each in enumerate(explainers)}
        values = over_runs({run: measure(classifier.run(run), subjects, of_run) for run, of_run in masks.items()})
        every.append(means(name, title, values, len(masks)))
        of_each[name] = values
        objectives += own
        if name not in controls or (name == PERFECT and subjects.of_classes):
            found.matrices[title] = specificity(
                classifier.run(0), subjects, masks[0]
            )  # of one run: K masks, 9 thresholds
            matrix_rows += specificity_rows(found.matrices[title], names, name, title, counts, entry.images, entry.backbone)  # fmt: skip
            found.masks[title] = masks[0][rows, classes]
    found.tables = {"": pd.concat(every), "_specificity": pd.DataFrame(matrix_rows)}
    found.tables["_tests"] = comparisons({name: of_each[name] for name in of_each if name != PERFECT}, methods)
    found.tables |= {"_classes": _precision(dataset, classifier, settings), "_objectives": pd.DataFrame(objectives)}
    return found


def _subjects(dataset: str, settings: Settings) -> tuple[list[int], Subjects]:
    """Numbers of test images, and the images: those with a mask if there are masks, spread over the classes."""
    pictures = load_pictures(dataset, "test")
    some = np.arange(len(pictures.labels))
    if pictures.masks is not None:
        some = np.array([number for number in some if pictures.masks[number].any()])
    labels = np.array(pictures.labels[some])
    numbers = some[spread_over_classes(labels, min(settings.multi_label.images, len(some)))]
    images = torch.from_numpy(np.array(pictures.images[numbers])).to(choose_device())
    masks = None if pictures.masks is None else np.array(pictures.masks[numbers])
    of_classes = masks is not None and has_mask_of_each_class(dataset)
    return numbers.tolist(), Subjects(images, np.array(pictures.labels[numbers]), masks, of_classes)


def _of_images(data: TrainingData, numbers: list[int]) -> TrainingData:
    assert data.images is not None
    return replace(data, features=data.features[:, numbers], images=data.images[numbers], labels=data.labels[numbers])


def _fitted(dataset: str, name: str, classifier: Classifier, settings: Settings) -> list[Explainer]:
    """The method on the classifier of each run, for the runs to which it is fitted."""
    kind = explainer_class(name)
    options = method_settings(settings, name, kind.Settings)
    try:
        if not issubclass(kind, LearnedExplainer):
            return [kind(classifier.run(run), options) for run in range(classifier.runs)]
    except BlaError as error:
        raise BlaError(f"params.yaml: multi_label.explainers: {name}: {dataset}: {error}") from error
    stage = f"multi_label_fit@{dataset}-{name}"
    method = kind(classifier, options).load(load_tensors(LEARNED / dataset / f"{name}.safetensors", stage))
    return [method.run(run) for run in range(method.fitted_runs)]


def _objectives(name: str, explainers: list[Explainer], data: TrainingData) -> list[dict[str, object]]:
    """A row per run of a learned method: its own objective on these images, and that of the best constant mask."""
    rows: list[dict[str, object]] = []
    for run, explainer in enumerate(explainers):
        values = explainer.objective(data, [run]) if isinstance(explainer, LearnedExplainer) else None
        if values is not None:
            value, constant = values[0].tolist()
            row: dict[str, object] = {"method": name, "run": run, "objective": value, "objective_of_constant": constant}
            rows.append(row | {"trained": bool(larger(np.array(constant), np.array(value)))})
    return rows


@torch.no_grad()
def _precision(dataset: str, classifier: Classifier, settings: Settings) -> pd.DataFrame:
    """The average precision of each class on all test images."""
    data = load_data(dataset, "test", settings)
    assert data.grid is not None
    scores = scores_from_features(classifier, data.features[0], data.grid).double().numpy()
    train = load_pictures(dataset, "train").labels
    return precision_by_class(scores, data.labels.numpy(), class_names(dataset)).assign(n_train=train.sum(axis=0))
