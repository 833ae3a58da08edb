"""The maps of one explanation method on a dataset's test images, cached with a key of everything they depend on.

maker = MapMaker(dataset, settings)
for method in maker.methods():
    maps = maker.maps(method)
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from bla.base.errors import BlaError
from bla.base.paper import COLUMNS
from bla.datasets import class_of_each
from bla.explainers.all_maps import MethodMaps, Subjects, features_of, make_maps, retrained_maps
from bla.explainers.interface import Explainer, LearnedExplainer, State, TrainingData, add_noise
from bla.explainers.posthoc.lime import LIME
from bla.explainers.registry import explainer_class, explainer_files
from bla.metrics.randomisation import cascade_levels, folded_cascade
from bla.networks.backbones import load_backbone
from bla.networks.classifier import Classifier
from bla.networks.remembered import with_remembered_features
from bla.runtime.cache import Arrays, cache_key, cached, content_hash
from bla.runtime.seeds import derive_seed
from pipeline.artifacts.explained_images import key_parts, load_explained, spread
from pipeline.artifacts.features import explained_features, feature_files, load_features, load_grid
from pipeline.artifacts.images import load_images, prepared_files, some_images
from pipeline.artifacts.maps import LIME_MAPS, lime_seeds, load_maps
from pipeline.artifacts.models import BACKBONES, load_state
from pipeline.maps.fitted_methods import learned_methods
from pipeline.run.environment import WORK
from pipeline.run.methods import method_settings
from pipeline.run.settings import PARAMS, Settings

STATISTICS_OF = 32
"""Number of training images for the statistics of a random network's batch normalisation."""
REMEMBERED = 64
"""Explained images at most whose maps on random networks are kept: some 20 an image, 5 MB of 7x7 cells and 1,280 channels."""
COSTS = ("forwards", "backwards", "seconds")
PARTS = ("maps", "again", "noise", "random", "draws", *COSTS)
"""The fields of `MethodMaps` that are arrays or numbers."""


class Method:
    """A method with its settings and, if it is learned, the state of the run that is measured.

    A variant is the method `attention` with the variant's settings.
    """

    def __init__(self, name: str, settings: Settings, state: State | None) -> None:
        self.name, self.state = name, state
        self.variant = settings.variant[name] if name in settings.variants else None
        kind = "attention" if self.variant else name
        self.explainer, self.file = explainer_class(kind), explainer_files()[kind]
        self.settings = self.variant or method_settings(settings, name, self.explainer.Settings)

    def build(self, model: Classifier) -> Explainer:
        """The method on a classifier of one run."""
        method: Explainer = self.explainer(model, self.settings)
        return method.load(self.state) if self.state and isinstance(method, LearnedExplainer) else method

    def unfitted(self, model: Classifier) -> LearnedExplainer:
        """A learned method before fitting; a variant's head is frozen."""
        method: LearnedExplainer = self.explainer(
            model, replace(self.settings, head="frozen") if self.variant else self.settings
        )
        return method

    @property
    def title(self) -> str:
        """The method's name in tables and pictures."""
        return COLUMNS.get(self.name, self.name) if self.variant else str(self.explainer.title_of(self.state))

    def properties(self) -> dict[str, bool]:
        """Whether it is learned, a control, ignores the image, is slow, and explains few images."""
        return {name: getattr(self.explainer, name) for name in ("learned", "control", "ignores_image", "slow", "few")}

    def key_parts(self) -> tuple[list[object], list[object]]:
        """For `cache_key`: the settings and data on which only this method's maps depend."""
        return [self.name, self.settings], list((self.state or {}).values())


class MapMaker:
    """Shared by the maps of all methods on a dataset: images, classifier, targets, random classifiers."""

    def __init__(self, dataset: str, settings: Settings) -> None:
        self.dataset, self.settings, self.spec = dataset, settings, settings.faithfulness
        self.explained = load_explained(dataset, settings)
        self.images, self.numbers = self.explained.images, self.explained.numbers
        self.device, self.grid = self.images.device, load_grid(dataset)
        self.checks = dataset not in self.spec.left_out
        self.model = self.explained.classifier_of(self.spec.run)
        self.lime = load_maps(LIME_MAPS / f"{dataset}.safetensors", "lime", dataset, self.numbers)
        self.row = self.spec.run if len(self.lime["targets"]) > 1 else 0
        self.targets = torch.from_numpy(self.lime["targets"][self.row])
        noise_seeds = torch.tensor([derive_seed(settings.seed, dataset, "noise", number) for number in self.numbers])
        noisy = add_noise(self.images, self.spec.noise, noise_seeds)
        self.subjects = Subjects(images=self.images, noisy=noisy, targets=self.targets.to(self.device), slow=self.explained.slow, checked=self.explained.checked)  # fmt: skip
        self.typical = torch.from_numpy(np.array(some_images(dataset, "train", STATISTICS_OF)[1])).to(self.device)
        self.seed = derive_seed(settings.seed, dataset, "randomisation")
        backbone, weights = settings.dataset[dataset].backbone, BACKBONES / f"{dataset}.safetensors"
        # Not folded, so that the statistics of batch normalisation can be set.
        _, height, width, _ = self.typical.shape
        intact = load_backbone(backbone, weights, (height, width))
        self.intact = self.model.with_extractor(intact).to(self.device).eval()

    @cached_property
    def random(self) -> list[Classifier]:
        """Classifiers with more and more random layers, with batch normalisation folded; none without checks."""
        if not self.checks:
            return []
        return folded_cascade(self.intact, self.seed, self.typical)

    @cached_property
    def remembering(self) -> list[Classifier]:
        """`random`, with the features of an image computed once: fast methods explain the same images one after the other."""
        return [self._remembering(classifier) for classifier in self.random]

    @cached_property
    def random_features(self) -> Tensor:
        """The features `[1, N, n, C]` that the completely random network gives for the images of retraining."""
        return features_of(self.random[-1], self.retraining_images[1])

    @cached_property
    def hashes(self) -> list[str]:
        """Of the files with all features and images, which are large: once for all methods."""
        return [content_hash(path) for path in (*feature_files(self.dataset), *prepared_files(self.dataset))]

    @cached_property
    def retraining_images(self) -> tuple[Tensor, Tensor]:
        """Numbers and pixels of the training images to which learned methods are fitted again."""
        numbers, pixels, _ = some_images(self.dataset, "train", self.spec.retraining_images)
        return torch.from_numpy(numbers), torch.from_numpy(np.array(pixels))

    @cached_property
    def draws(self) -> list[list[Classifier]]:
        """The first and the last level of further cascades, with other random numbers; they remember features too."""
        count = self.spec.random_draws if self.checks else 1
        seeds = [derive_seed(self.seed, "draw", draw) for draw in range(1, count)]
        cascades = [folded_cascade(self.intact, seed, self.typical, ends=True) for seed in seeds]
        return [[self._remembering(classifier) for classifier in ends] for ends in cascades]

    @torch.no_grad()
    def _remembering(self, classifier: Classifier) -> Classifier:
        if len(self.numbers) > REMEMBERED:
            return classifier
        remembering = with_remembered_features(classifier)
        remembering.features(self.images)  # in the same batch, whichever method comes first
        return remembering

    def levels(self) -> list[str]:
        """The names of the random classifiers' levels."""
        return cascade_levels(self.intact) if self.checks else []

    def methods(self) -> Iterator[Method]:
        """LIME, the methods of `explainers`, the learned ones, and the variants.

        A method that cannot explain the dataset's classifier is left out, with a printed reason. On a dataset in
        `faithfulness.left_out` slow methods are left out too, and those that train on images (the stage `fit` says so).
        """
        for name in ("lime", *self.settings.explainers):
            method = Method(name, self.settings, None)
            if method.explainer.slow and not self.checks:
                print(f"{self.dataset}: {name} is left out: see faithfulness.left_out")
                continue
            try:
                method.build(self.model)
            except BlaError as error:
                print(f"{self.dataset}: {name} is left out: {error}")
                continue
            yield method
        for name in (*learned_methods(self.dataset, self.settings), *self.settings.variants):
            state = load_state(self.dataset, name)
            runs, run = len(next(iter(state.values()))), self.spec.run
            if self.explained.classifier.runs == 1:  # methods are fitted once, variants are trained in all runs
                run = min(run, runs - 1)
            if run >= runs:
                raise BlaError(
                    f"{PARAMS}: faithfulness.run: {name} has only {runs} runs on {self.dataset}, so run {run} cannot be "
                    f"measured; raise explainer.{name}.runs, or measure an earlier run"
                )
            yield Method(name, self.settings, {key: values[run : run + 1] for key, values in state.items()})

    def maps(self, method: Method) -> MethodMaps:
        """`make_maps` of a method; LIME's maps of the images are those of the stage `lime`."""
        seeds, lime = self._seeds(method.name), []
        if method.name == "lime":
            lime = [self.lime["maps"][self.row].reshape(-1, *self.grid), self.lime["maps_again"][self.row]]
        settings, data = self._key_parts(method)
        subjects = self._subjects(method)

        def work() -> Arrays:
            # A slow method changes the images, so nothing is gained; and LIME is faster on the bare backbone.
            random = (lambda: self.random if method.explainer.slow else self.remembering), (lambda: self.draws)
            made = make_maps(method.build, self.model, *random, subjects, seeds, *lime)
            sets = np.frombuffer(json.dumps(made.sets).encode(), np.uint8)
            return {name: np.asarray(getattr(made, name)) for name in PARTS} | {"sets": sets}

        settings += [seeds.tolist(), self.spec.random_draws]
        key = cache_key([Path(__file__), method.file], settings, [*data, subjects.noisy, subjects.slow, *lime])
        arrays = cached(WORK, f"maps-{self.dataset}-{method.name}", key, work)
        parts = {name: arrays[name] for name in PARTS} | {name: arrays[name].item() for name in COSTS}
        return MethodMaps(sets=json.loads(arrays["sets"].tobytes()), **parts)

    def _subjects(self, method: Method) -> Subjects:
        """The images that a method explains: of one for few images, slow ones as far as there are enough, and none twice."""
        if not method.explainer.few:
            return self.subjects
        slow, count = self.subjects.slow, cast(Any, method.settings).images
        classes = class_of_each(self.explained.labels)
        chosen = spread(slow, classes, count) | spread(~slow, classes, max(0, count - int(slow.sum())))
        return replace(self.subjects, slow=chosen, checked=np.zeros_like(chosen))

    def objective(self, method: Method) -> tuple[float, float]:
        """A learned method's own objective on all test images, and that of the best constant mask; NaN if it has none."""
        learned = method.build(self.model)
        if not isinstance(learned, LearnedExplainer):
            return np.nan, np.nan
        features, labels = explained_features(self.dataset), load_features(self.dataset, "test")[1]
        schedule, seed = self.settings.dataset[self.dataset].training, derive_seed(self.settings.seed, self.dataset, method.name, "objective")  # fmt: skip
        data = TrainingData(features[None], self.grid, load_images(self.dataset, "test"), labels, schedule, self.device)

        def work() -> Arrays:
            values = learned.objective(data, [seed])
            return {"values": np.full(2, np.nan) if values is None else values[0].double().numpy()}

        settings, known = self._key_parts(method)
        key = cache_key([Path(__file__), method.file], [*settings, seed, self.hashes], known)
        value, constant = cached(WORK, f"objective-{self.dataset}-{method.name}", key, work)["values"].tolist()
        return value, constant

    def retrained(self, method: Method) -> Arrays:
        """Maps `[2, M, n]` of a learned method, refitted to the first and to the last random classifier."""
        schedule, seed = self.settings.dataset[self.dataset].training, derive_seed(self.settings.seed, self.dataset, method.name, "retrained")  # fmt: skip
        rows, images = self.retraining_images
        all_features, all_labels = load_features(self.dataset, "train")
        features, labels = all_features[:, rows], all_labels[rows]
        settings, data = self._key_parts(method)

        def work() -> Arrays:
            head, *_, network = self.random
            both = [features.to(self.device), self.random_features]
            sets = [TrainingData(of_classifier, self.grid, images.numpy(), labels.to(self.device), schedule, self.device, schedule.epochs) for of_classifier in both]  # fmt: skip
            seeds = self._seeds(method.name)
            return {"maps": retrained_maps(method.unfitted, [head, network], sets, seed, self.images, self.subjects.targets, seeds)}  # fmt: skip

        key = cache_key([Path(__file__), method.file], [*settings, schedule, seed], [*data, images, features, labels])
        return cached(WORK, f"retrained-{self.dataset}-{method.name}", key, work)

    def can_retrain(self, method: Method) -> bool:
        """Whether a random classifier has the head that the method trains on; prints a line if not."""
        if not self.checks:
            return False
        try:
            if method.variant:
                self.model.linear_head()
        except BlaError as error:
            print(f"{self.dataset}: {method.name} is not refitted to random classifiers: {error}")
            return False
        return True

    def _key_parts(self, method: Method) -> tuple[list[object], list[object]]:
        (settings, data), (own_settings, own_data) = key_parts(self.explained, self.dataset, self.settings), method.key_parts()  # fmt: skip
        settings += [self.seed, self.spec.run, *own_settings]
        return settings, [*data, self.targets, self.typical, *own_data]

    def _seeds(self, name: str) -> Tensor:
        """The seed of each image; LIME has the seeds of the stage `lime`."""
        seed = self.settings.seed
        if name == "lime":
            patterns_of = method_settings(self.settings, "lime", LIME.Settings).patterns_of
            return torch.tensor(lime_seeds(seed, self.dataset, "maps", patterns_of, self.numbers))
        return torch.tensor([derive_seed(seed, self.dataset, name, number) for number in self.numbers])
