"""The interface of explanation methods: from images and classes to maps.

    method = explainer_class("grad_cam")(classifier.run(0))
    maps = method.explain(images, targets, seeds)        # [B, h, w], higher is more important

    learned = explainer_class("attention")(classifier, settings)
    learned.load(learned.fit(data, seeds))               # all runs of the classifier
    maps = learned.explain_runs(images, targets, seeds)  # [R, B, h, w]

One file per method, in the folder of its family, holds its settings, its card and its class. Each method must pass
`check_explainer` (contract.py).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bla.base.errors import BlaError
from bla.base.specs import FORBID_EXTRA, Schedule
from bla.networks.classifier import Classifier
from bla.networks.patches import Grid, batch_size_for, cell_means

State = dict[str, Tensor]
"""The tensors of a fitted method, by name; each has a leading run dimension R."""
Sets = list[list[list[int]]]
"""For each image its sets of cells, best first; a set is a sorted list of cell numbers, counted row by row."""

SHORT = "short_training"
"""A tensor bool `[R]` of states that were fitted to a part of the training images."""
NOT_TRAINED = {"losses", SHORT, "running_mean", "running_var", "num_batches_tracked"}
"""What tensors of a state are called, after the last dot, that no optimiser trains."""

CONSTANTS = [(step / 10) ** 2 for step in range(11)]
"""The values of the constant masks of `LearnedExplainer.objective`: 0 to 1, denser towards 0."""


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a reader should know of a method before using it.

    `sentence`: what the map shows, in one sentence; `source`: who proposed it; `needs`: the parts of the classifier
    that it uses; `cost` of one map; `proof`: the tests that show that it is right.
    """

    sentence: str
    source: str
    needs: str
    cost: str
    proof: str


@dataclass(frozen=True, kw_only=True)
class NoSettings:
    """The settings of a method that has none."""

    __pydantic_config__: ClassVar = FORBID_EXTRA


@dataclass(frozen=True)
class TrainingData:
    """Training data of a learned method.

    `features` `[D, N, n, C]`: D draws of the training images' features in half precision, n = h * w cells of the
    `grid`; `images` uint8 `[N, H, W, 3]`, or None for a method that does not use them; `labels` int64 `[N]`, or
    multi-hot bool `[N, K]`. All may be memory maps; computations run on `device`. Epochs are counted from
    `first_epoch`, where the classifier's training ended, so that a method sees further draws.
    """

    features: Tensor
    grid: Grid | None
    images: NDArray[np.uint8] | None
    labels: Tensor
    schedule: Schedule
    device: torch.device
    first_epoch: int = 0

    def some(self, count: int) -> Self:
        """At most `count` of the images, evenly spread, with their features and labels, in memory; for methods that read `images`."""
        assert self.images is not None
        total = len(self.images)
        rows = torch.arange(min(count, total)) * total // min(count, total)
        return replace(
            self,
            features=self.features[:, rows.to(self.features.device)],
            images=self.images[rows.numpy()],
            labels=self.labels[rows.to(self.labels.device)].to(self.device),
            schedule=replace(self.schedule, images_in_memory=None),
        )


class Explainer(ABC):
    """A method that explains a classifier."""

    title: ClassVar[str]
    card: ClassVar[Card]
    Settings: ClassVar[Any] = NoSettings
    learned: ClassVar[bool] = False
    control: ClassVar[bool] = False
    """Whether it ignores the classifier, as a control that other methods must beat."""
    ignores_image: ClassVar[bool] = False
    """Whether it ignores the image too: then noise and random classifiers, which change nothing, say nothing about it."""
    class_specific: ClassVar[bool] = True
    seeded: ClassVar[bool] = False
    """Whether maps depend on the images' seeds."""
    makes_masks: ClassVar[bool] = False
    """Whether maps are masks, in [0, 1] and of the image's size, to be used without scaling."""
    all_runs: ClassVar[bool] = False
    """Whether it accepts a classifier with several runs, and `explain_runs` explains them together."""
    linear_head: ClassVar[bool] = False
    """Whether the classifier must have a linear head on average-pooled features."""
    slow: ClassVar[bool] = False
    """Whether a map takes hundreds of forward passes."""
    few: ClassVar[bool] = False
    """Whether a slow method explains only as many images as its setting `images` says, and none a second time."""

    def __init__(self, classifier: Classifier, settings: Any = None) -> None:
        assert classifier.runs == 1 or self.all_runs, "this method explains the classifier of one run (Classifier.run)"
        self.classifier = classifier
        self.settings = self.Settings() if settings is None else settings
        if self.linear_head:
            classifier.linear_head()  # raises BlaError

    @abstractmethod
    def explain(self, images: Tensor, targets: Tensor, seeds: Tensor) -> Tensor:
        """Maps `[B, h, w]`, float, higher is more important, at the method's own resolution, of the first run.

        `images` are uint8 `[B, H, W, 3]`; `targets` int64 `[B]` are the classes to explain, ignored by methods that are
        not `class_specific`. `seeds` int64 `[B]` belong to the images, so that a random method gives an image the same
        map in any batch. Images and targets are on the classifier's device, seeds may be on the CPU.
        """

    @classmethod
    def title_of(cls, state: State | None) -> str:
        """The title for tables and pictures: it says if the state of a learned method was fitted to a part of the images."""
        return f"{cls.title} (short training)" if SHORT in (state or {}) else cls.title

    def explain_runs(self, images: Tensor, targets: Tensor, seeds: Tensor) -> Tensor:
        """Maps `[R, B, h, w]` of every run, for targets `[R, B]`."""
        return torch.stack([self.run(run).explain(images, of_run, seeds) for run, of_run in enumerate(targets)])

    def run(self, number: int) -> Self:
        """The method on the classifier of one run."""
        return type(self)(self.classifier.run(number), self.settings)

    @torch.no_grad()
    def grid(self, images: Tensor) -> Grid:
        """Rows and columns of the feature map of these images."""
        rows, columns = self.classifier.extractor.feature_map(images[:1]).shape[2:]  # type: ignore[operator]
        return rows, columns


class LearnedExplainer(Explainer):
    """A method that is fitted to a classifier, for each of its runs, before it explains."""

    learned: ClassVar[bool] = True
    all_runs: ClassVar[bool] = True
    trains_on_images: ClassVar[bool] = False
    """Whether each step of training passes images through the network, which takes long; others train on cached features."""
    state: State

    @property
    def fitted_runs(self) -> int:
        """How many runs are fitted, the classifier's first ones; `fit` gets a seed for each.

        All, or as many as the setting `runs` says, if the method has one.
        """
        return min(getattr(self.settings, "runs", self.classifier.runs), self.classifier.runs)

    @abstractmethod
    def fit(
        self, data: TrainingData, seeds: Sequence[int], progress: Callable[[int], object] = lambda runs: None
    ) -> State:
        """Fit run r to run r of the classifier, from `seeds[r]`; `progress` is called with the number of runs that are done.

        Returns the state, on the CPU; the same seeds give the same state. Training losses, if any, are its `losses`
        `[R, epochs]`; it holds `SHORT` if only a part of the images was used. The classifier does not change. Raises
        BlaError if a loss is not finite.
        """

    def objective(self, data: TrainingData, seeds: Sequence[int]) -> Tensor | None:
        """Its own objective on held-out data, `[R, 2]`: of its masks, and of the best constant mask; lower is better.

        None if it has none (the default). A method that is not lower than the constant mask did not train.
        """
        return None

    @classmethod
    def trained_parameters(cls, state: Mapping[str, Tensor]) -> int:
        """How many numbers are trained in each run: those of its state but the tensors `NOT_TRAINED`."""
        return sum(values[0].numel() for name, values in state.items() if name.split(".")[-1] not in NOT_TRAINED)

    def load(self, state: Mapping[str, Tensor]) -> Self:
        """Use a state that `fit` returned or that was read from a file; returns the method itself."""
        self.state = {name: value.to(self.classifier.device) for name, value in state.items()}
        return self

    def run(self, number: int) -> Self:
        """The method on the classifier of one run, with the state of that run."""
        only = slice(number, number + 1)
        return super().run(number).load({name: value[only] for name, value in self.state.items()})


def marked_if_short(state: State, used: int, available: int) -> State:
    """The state, with `SHORT` if fewer images were used than are available."""
    runs = len(next(iter(state.values())))
    return state | {SHORT: torch.ones(runs, dtype=torch.bool)} if used < available else state


class StructuredExplainer(Explainer):
    """A method that also returns sets of cells; each set is an explanation."""

    @abstractmethod
    def explain_with_sets(self, images: Tensor, targets: Tensor, seeds: Tensor) -> tuple[Tensor, Sets]:
        """Maps as `explain` returns them, and for each image at least one set of cells of the grid, the best first."""

    def explain(self, images: Tensor, targets: Tensor, seeds: Tensor) -> Tensor:
        """The maps alone, `[B, h, w]`."""
        return self.explain_with_sets(images, targets, seeds)[0]


def require_finite_maps(explainer: Explainer, maps: Tensor, first: int = 0) -> None:
    """BlaError unless the maps `[..., B, h, w]` are finite; the first of the B images is the explained image `first`."""
    finite = maps.isfinite().flatten(-2).all(dim=-1).view(-1, maps.shape[-3]).all(dim=0)
    if not finite.all():
        number = first + int(finite.logical_not().nonzero()[0])
        raise BlaError(
            f"{explainer.title}: the map of image {number} of those explained (counted from 0) is not finite; check the "
            "classifier's weights, and the method with check_explainer"
        )


def explain_in_batches(explainer: Explainer, images: Tensor, targets: Tensor, seeds: Tensor) -> tuple[Tensor, Sets]:
    """Maps `[M, h, w]` of any number of images at the method's own resolution, on the CPU, and sets where there are any.

    BlaError if a map is not finite.
    """
    size = batch_size_for(images.device, images.shape[1:3])
    maps: list[Tensor] = []
    sets: Sets = []
    for part in zip(images.split(size), targets.split(size), seeds.split(size), strict=True):
        if isinstance(explainer, StructuredExplainer):
            values, sets_of_part = explainer.explain_with_sets(*part)
            sets += sets_of_part
        else:
            values = explainer.explain(*part)
        maps.append(values.cpu())
        require_finite_maps(explainer, maps[-1], sum(map(len, maps[:-1])))
    return torch.cat(maps), sets


def cell_maps(explainer: Explainer, images: Tensor, targets: Tensor, seeds: Tensor, grid: Grid) -> Tensor:
    """Maps of any number of images as means over the cells, `[B, n]` in double precision, on the CPU."""
    return cell_means(explain_in_batches(explainer, images, targets, seeds)[0].double(), grid).flatten(1)


def add_noise(images: Tensor, deviation: float, seeds: Tensor) -> Tensor:
    """The uint8 images with Gaussian noise drawn from their seeds; the standard deviation is for pixels in [0, 1]."""
    noise = [torch.randn(images.shape[1:], generator=torch.Generator().manual_seed(seed)) for seed in seeds.tolist()]
    noisy = images.float() + 255 * deviation * torch.stack(noise).to(images.device)
    return noisy.round().clamp(0, 255).to(torch.uint8)
