"""Classifiers and methods trained on images in which a cue goes with one class, beside those of Table 1."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bla.base.errors import BlaError
from bla.base.specs import NoExplanation
from bla.datasets import SplitName, spread_over_classes
from bla.experiments.related_methods.planted_bias.cue import paint_cue
from bla.explainers.interface import LearnedExplainer, State, TrainingData, explain_in_batches, require_finite_maps
from bla.method.initialisation import initial_head
from bla.method.scores import class_count
from bla.method.training import train
from bla.networks.backbones import extract, load_backbone
from bla.networks.classifier import Classifier
from bla.networks.folding import fold_batch_norm
from bla.networks.patches import batch_size_for
from bla.networks.remembered import RememberedFeatures
from bla.runtime.seeds import derive_seed
from pipeline.artifacts.features import explained_features, load_features, load_grid
from pipeline.artifacts.images import load_images, load_labels
from pipeline.artifacts.models import BACKBONES, load_head, load_state
from pipeline.maps.method_maps import Method
from pipeline.run.environment import choose_device
from pipeline.run.settings import Settings

Array = NDArray[np.float64]
CUED = 0
"""The class that goes with the cue in training: the first one."""


class MethodOnBoth(NamedTuple):
    """A method's maps `[R, M, h, w]` for the classifier trained with the cue, and for the one without."""

    name: str
    title: str
    biased: Array
    unbiased: Array


class BiasedTraining:
    """A dataset with the cue, and R classifiers trained on it, with the seeds of the baseline's first R runs.

    Only the training images of the class `CUED` differ from those of the baseline, which is the control. BlaError for a
    method that is fitted to a few runs alone, before anything is computed: L-CAM-Img, the Explainer and XNN train for long.
    """

    def __init__(self, dataset: str, settings: Settings) -> None:
        self.dataset, self.settings, self.device = dataset, settings, choose_device()
        self.methods = _listed_methods(settings)
        self.runs = min(settings.planted_bias.runs, settings.runs)
        labels, pixels = load_labels(dataset, "test"), load_images(dataset, "test")
        backbone = settings.dataset[dataset].backbone
        weights = BACKBONES / f"{dataset}.safetensors"
        self.extractor = fold_batch_norm(load_backbone(backbone, weights, (pixels.shape[1], pixels.shape[2])))
        self.remembered = RememberedFeatures(self.extractor)  # the methods explain the same images
        self.numbers = spread_over_classes(labels, min(settings.planted_bias.images, len(labels)))
        self.cued, self.masks = self.paint("test", self.numbers)
        self.images = torch.from_numpy(self.cued).to(self.device)
        self.others = np.asarray(labels)[self.numbers] != CUED
        self.data = self._training_data()
        self.biased, self.unbiased = self._classifiers()

    def paint(self, split: SplitName, numbers: NDArray[np.int64]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """These images of a split with the cue, and its masks."""
        seeds = [derive_seed(self.settings.seed, self.dataset, "cue", split, number) for number in numbers]
        return paint_cue(load_images(self.dataset, split)[numbers], self.settings.planted_bias.cue_size, seeds)

    def features(self, images: NDArray[np.uint8]) -> Tensor:
        """Half-precision features `[N, n, C]` of images."""
        return torch.from_numpy(np.concatenate(list(extract(self.extractor, images, self.device))))

    def predicted(self) -> dict[str, NDArray[np.bool_]]:
        """Whether the explained images of other classes are predicted as `CUED`, `[R, N]` (see `use_of_the_cue`)."""
        clean, cued = explained_features(self.dataset, self.numbers), self.features(self.cued)
        pairs = {"biased": (self.biased, cued), "without_cue": (self.biased, clean), "unbiased": (self.unbiased, cued)}
        return {name: self._predicts_cued(*pair)[:, self.others] for name, pair in pairs.items()}

    def maps(self) -> Iterator[MethodOnBoth]:
        """The maps of every method of `planted_bias.methods` that runs, for the class `CUED` of the explained images."""
        for method in self.methods:
            name = method.name
            seeds = [derive_seed(self.settings.seed, self.dataset, name, run) for run in range(self.runs)]
            states: list[State | None] = [None, None]
            if method.explainer.learned:
                unfitted: LearnedExplainer = method.explainer(self.biased, method.settings)
                states = [unfitted.fit(self.data, seeds), load_state(self.dataset, name)]
            both = [self.biased, self.unbiased]
            if not method.explainer.slow:  # which change the images
                both = [classifier.with_extractor(self.remembered).eval() for classifier in both]
            maps = [self._maps(name, *pair) for pair in zip(both, states, strict=True)]
            yield MethodOnBoth(name, Method(name, self.settings, states[1]).title, *maps)

    def _maps(self, name: str, classifier: Classifier, state: State | None) -> Array:
        targets = torch.full((len(self.images),), CUED, device=self.device)
        seeds = torch.tensor([derive_seed(self.settings.seed, self.dataset, "cue", name, n) for n in self.numbers])
        if state is None:
            alone = [Method(name, self.settings, None).build(classifier.run(run)) for run in range(self.runs)]
            maps = torch.stack([explain_in_batches(method, self.images, targets, seeds)[0] for method in alone])
        else:  # one pass over the images serves all runs
            used = {key: values[: self.runs] for key, values in state.items()}
            learned, size = Method(name, self.settings, used).build(classifier), batch_size_for(self.device, self.cued.shape[1:3])  # fmt: skip
            parts = zip(self.images.split(size), targets.expand(self.runs, -1).split(size, dim=1), seeds.split(size), strict=True)  # fmt: skip
            maps = torch.cat([learned.explain_runs(*part).cpu() for part in parts], dim=1)
            require_finite_maps(learned, maps)
        return np.asarray(maps.double().numpy())

    def _training_data(self) -> TrainingData:
        features, labels = load_features(self.dataset, "train")
        rows = np.flatnonzero(labels.numpy() == CUED)
        biased = features.clone()
        biased[0, torch.from_numpy(rows)] = self.features(self.paint("train", rows)[0])
        schedule = self.settings.dataset[self.dataset].training
        return TrainingData(biased, load_grid(self.dataset), None, labels, schedule, self.device, schedule.epochs)

    def _classifiers(self) -> tuple[Classifier, Classifier]:
        """The classifiers trained with the cue, and those without it: the baseline's first R heads."""
        data, none = self.data, NoExplanation(explanation="none")
        seeds = [derive_seed(self.settings.seed, self.dataset, "bl", run) for run in range(self.runs)]
        initial = [derive_seed(seed, "initial head") for seed in seeds]
        start = initial_head(initial, data.features.shape[3], class_count(data.labels))
        head = train(data.features, data.labels, none, start, seeds, data.schedule, device=self.device).head
        stored = load_head(self.dataset, self.settings.runs)
        stored = type(head)(stored.weight[: self.runs], stored.bias[: self.runs])
        biased, unbiased = (Classifier(self.extractor, h).to(self.device).eval() for h in (head, stored))
        return biased, unbiased

    @torch.no_grad()
    def _predicts_cued(self, classifier: Classifier, features: Tensor) -> NDArray[np.bool_]:
        parts = (part.float().mT[..., None].to(self.device) for part in features.split(256))
        scores = torch.cat([classifier.logits(part).cpu() for part in parts], dim=1)
        return np.asarray(scores.argmax(dim=2).numpy() == CUED)


def _listed_methods(settings: Settings) -> list[Method]:
    """The methods of `planted_bias.methods` that run; BlaError for a learned one that is fitted to a few runs alone."""
    listed = (*settings.explainers, *settings.learned_explainers, *settings.variants)
    methods = [Method(name, settings, None) for name in listed if name in settings.planted_bias.methods]
    for method in methods:
        if method.explainer.learned and hasattr(method.settings, "runs"):
            raise BlaError(
                f"methods: {method.name} is fitted to a few runs alone (explainer.{method.name}.runs); leave it out"
            )
        if method.explainer.learned and method.explainer.trains_on_images:
            raise BlaError(f"methods: {method.name} trains on images, not on features with the cue; leave it out")
    return methods
