"""The images of the user study: test images on which the compared systems decide for the same class, with their maps."""

import numpy as np
import torch
from numpy.typing import NDArray

from bla.base.errors import BlaError
from bla.base.paper import variant_departures
from bla.datasets import spread_over_classes
from bla.experiments.explanations.user_study.protocol import METHODS, OTHERS, QUESTIONS
from bla.explainers.interface import cell_maps
from bla.networks.backbones import load_backbone
from bla.networks.folding import fold_batch_norm
from bla.report.questionnaire.page import StudyDataset
from bla.runtime.seeds import derive_seed
from pipeline.artifacts.explained_images import load_classifier
from pipeline.artifacts.features import load_grid
from pipeline.artifacts.images import class_names, load_images, load_labels
from pipeline.artifacts.models import BACKBONES
from pipeline.maps.method_maps import Method
from pipeline.run.entries import dataset_departures
from pipeline.run.environment import choose_device
from pipeline.run.predictions import decided_classes, maps_of
from pipeline.run.settings import Settings

IMAGES = 20
"""Images of a dataset in the page; a person sees QUESTIONS for each comparison and one for each prediction."""
FEWEST = QUESTIONS * len(OTHERS) + len(METHODS)
VARIANTS = ("bla_t", "l2x_f")


def study_dataset(dataset: str, settings: Settings) -> StudyDataset:
    """A dataset's images and maps for the page, of the run `faithfulness.run`.

    Raises BlaError if BL, BLA-T and L2X-F decide for the same class on too few test images.
    """
    decided = decided_classes(dataset, settings)
    classes = decided["bl"]
    agreed = np.flatnonzero(np.all([decided[key] == classes for key in VARIANTS], axis=0))
    if len(agreed) < FEWEST:
        raise BlaError(
            f"params.yaml: dataset.{dataset}: BL, BLA-T and L2X-F decide for the same class on only {len(agreed)} test images, "
            f"but a person sees {FEWEST}; use more test images, train for longer, or remove {dataset} from datasets"
        )
    labels = np.asarray(load_labels(dataset, "test"), np.int64)
    numbers = np.sort(agreed[spread_over_classes(labels[agreed], IMAGES)])
    pixels, grid = np.array(load_images(dataset, "test")[numbers]), load_grid(dataset)
    hard = {key: maps_of(dataset, settings, numbers.tolist())[key][2] for key in VARIANTS}
    maps = {**hard, "grad_cam": _grad_cam(dataset, settings, pixels, classes[numbers]).reshape(-1, *grid)}
    rng = np.random.default_rng(derive_seed(settings.seed, dataset, "study", "other image"))
    maps["other_image"] = hard["bla_t"][_others(len(numbers), rng)]
    varied = variant_departures(settings.variant)
    departures = [*dataset_departures(settings, dataset), *(text for key in VARIANTS for text in varied[key])]
    kind = settings.dataset[dataset].images.kind
    names, examples = class_names(dataset), _examples(dataset)
    return StudyDataset(dataset, kind, departures, names, numbers, pixels, classes[numbers], maps, examples)


def _examples(dataset: str) -> dict[int, NDArray[np.uint8]]:
    """The first training image of each class."""
    labels, first = np.unique(np.asarray(load_labels(dataset, "train")), return_index=True)
    images = load_images(dataset, "train")
    return {int(label): np.array(images[number]) for label, number in zip(labels, first, strict=True)}


def _grad_cam(dataset: str, settings: Settings, images: NDArray[np.uint8], classes: NDArray[np.int64]) -> NDArray[np.float64]:  # fmt: skip
    """Grad-CAM of BL for these classes, as means over the cells `[M, n]`."""
    device, backbone = choose_device(), settings.dataset[dataset].backbone
    extractor = load_backbone(backbone, BACKBONES / f"{dataset}.safetensors", (images.shape[1], images.shape[2]))
    classifier = load_classifier(dataset, settings, fold_batch_norm(extractor)).to(device).eval()
    method = Method("grad_cam", settings, None).build(classifier.run(settings.faithfulness.run))
    batch = torch.from_numpy(images).to(device), torch.from_numpy(classes).to(device), torch.zeros(len(images), dtype=torch.int64)  # fmt: skip
    return np.asarray(cell_maps(method, *batch, load_grid(dataset)).numpy())


def _others(count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """For each image another one, every image once: a random order, moved by one place."""
    order = rng.permutation(count)
    others = np.empty(count, np.int64)
    others[order] = np.roll(order, 1)
    return others
