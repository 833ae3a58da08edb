"""The maps of one explanation method on a dataset's test images, cached by all that decides them.

maker = MapMaker(dataset, settings)
for method in maker.methods():
    arrays = maker.maps(method)
"""

from collections.abc import Iterator
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bla.base.paper import COLUMNS
from bla.base.specs import Explaining
from bla.explainers.all_maps import features_of, make_maps, retrained_maps
from bla.explainers.interface import Explainer
from bla.explainers.learned.attention import Attention
from bla.explainers.registry import explainer_class, explainer_files
from bla.method.modules import Module
from bla.metrics.randomisation import cascade_levels, folded_cascade
from bla.networks.backbones import load_backbone
from bla.networks.classifier import Classifier
from bla.runtime.cache import Arrays, cache_key, cached
from bla.runtime.seeds import derive_seed
from pipeline.artifacts.explained_images import key_parts, load_explained
from pipeline.artifacts.features import load_features
from pipeline.artifacts.images import training_images
from pipeline.artifacts.maps import LIME_MAPS, lime_seeds, load_maps
from pipeline.artifacts.models import BACKBONES, load_variant
from pipeline.run.environment import WORK
from pipeline.run.settings import Settings

STATISTICS_OF = 64
"""How many training images a random network's batch normalisation takes its statistics from."""


class Method:
    """LIME, a method of `explainers`, or a variant with its module of the run that is measured, and its settings."""

    def __init__(self, name: str, settings: Settings, variant: tuple[Explaining, Module] | None) -> None:
        self.name, self.variant = name, variant
        options = {"lime": asdict(settings.explainer.lime), "rise": asdict(settings.explainer.rise)}.get(name, {})
        self.options: dict[str, Any] = {} if variant else options
        self.options.pop("patterns_of", None)  # a matter of seeds
        self.file: Path = explainer_files()["attention" if variant else name]

    def build(self, model: Classifier) -> Explainer:
        """The method on a classifier of one run."""
        if self.variant:
            return Attention(model, *self.variant)
        method: Explainer = explainer_class(self.name)(model, **self.options)
        return method

    def title(self, method: Explainer) -> str:
        """How tables and pictures call it."""
        return COLUMNS.get(self.name, self.name) if self.variant else method.title

    def key_parts(self) -> tuple[list[object], list[object]]:
        """For `cache_key`: the settings and the data that decide this method's maps alone."""
        if self.variant is None:
            return [self.name, self.options], []
        spec, module = self.variant
        return [spec], [module.weight, module.bias]


class MapMaker:
    """What the maps of all methods on a dataset have in common: images, classifier, targets, random classifiers."""

    def __init__(self, dataset: str, settings: Settings) -> None:
        self.dataset, self.settings, self.spec = dataset, settings, settings.faithfulness
        self.explained = load_explained(dataset, settings)
        self.images, self.numbers = self.explained.images, self.explained.numbers
        self.device = self.images.device
        self.model = self.explained.classifier.run(self.spec.run)
        self.lime = load_maps(LIME_MAPS / f"{dataset}.safetensors", "lime", dataset, self.numbers)
        self.targets = torch.from_numpy(self.lime["targets"][self.spec.run])
        self.typical = training_images(dataset, STATISTICS_OF)[1].to(self.device)
        self.seed = derive_seed(settings.seed, dataset, "randomisation")
        backbone, weights = settings.dataset[dataset].backbone, BACKBONES / f"{dataset}.safetensors"
        # Batch normalisation as layers of their own, in which statistics can be measured.
        intact = load_backbone(backbone, weights, self.typical.shape[1])
        self.intact = Classifier(intact, self.model.head()).to(self.device).eval()

    @cached_property
    def random(self) -> list[Classifier]:
        """The classifier with one more random layer each time, folded."""
        return folded_cascade(self.intact, self.seed, self.typical)

    def levels(self) -> list[str]:
        """The names of the random classifiers' levels."""
        return cascade_levels(self.intact)

    def methods(self) -> Iterator[Method]:
        """LIME, the methods of `explainers`, and the variants."""
        for name in ("lime", *self.settings.explainers):
            yield Method(name, self.settings, None)
        for name in self.settings.variants:
            variant, _, module = load_variant(self.dataset, name, self.settings)
            yield Method(name, self.settings, (variant, module.run(self.spec.run).to(self.device)))

    def maps(self, method: Method) -> Arrays:
        """`make_maps` of a method; LIME's own maps are those of the stage `lime`."""
        seeds = self._seeds(method.name)
        lime = self.lime["maps"][self.spec.run] if method.name == "lime" else None
        settings, data = self._key_parts(method)

        def work() -> Arrays:
            explained, targets = self.explained, self.targets.to(self.device)
            which = explained.slow, explained.checked
            return make_maps(method.build, self.model, lambda: self.random, self.images, targets, seeds, *which, self.spec.noise, lime)  # fmt: skip

        data += [] if lime is None else [lime]
        key = cache_key([Path(__file__), method.file], [*settings, seeds.tolist()], data)
        return cached(WORK, f"maps-{self.dataset}-{method.name}", key, work)

    def retrained(self, method: Method) -> Arrays:
        """Maps of a variant's module that is trained anew on the first and on the last random classifier."""
        schedule, seed = self.settings.dataset[self.dataset].training, derive_seed(self.settings.seed, self.dataset, method.name, "retrained")  # fmt: skip
        numbers, images = training_images(self.dataset, self.spec.retraining_images)
        (all_features, all_labels), rows = load_features(self.dataset, "train"), torch.from_numpy(numbers)
        features, labels = all_features[:, rows], all_labels[rows]
        settings, data = self._key_parts(method)

        def work() -> Arrays:
            head, *_, network = self.random
            both = [features.to(self.device), features_of(network, images)]
            assert method.variant
            maps = retrained_maps(method.variant[0], [head, network], both, labels.to(self.device), schedule, seed, self.images)  # fmt: skip
            return {"maps": maps}

        key = cache_key([Path(__file__), method.file], [*settings, schedule, seed], [*data, images, features, labels])
        return cached(WORK, f"retrained-{self.dataset}-{method.name}", key, work)

    def _key_parts(self, method: Method) -> tuple[list[object], list[object]]:
        (settings, data), (own_settings, own_data) = key_parts(self.explained, self.dataset, self.settings), method.key_parts()  # fmt: skip
        settings += [self.seed, self.spec.noise, self.spec.run, *own_settings]
        return settings, [*data, self.targets, self.typical, *own_data]

    def _seeds(self, name: str) -> Tensor:
        """The seed of each image; LIME's are those of the stage `lime`."""
        seed = self.settings.seed
        if name == "lime":
            patterns_of = self.settings.explainer.lime.patterns_of
            return torch.tensor(lime_seeds(seed, self.dataset, "maps", patterns_of, self.numbers))
        return torch.tensor([derive_seed(seed, self.dataset, name, number) for number in self.numbers])
