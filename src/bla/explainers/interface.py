"""What every explanation method is: from images and classes to maps of what mattered.

    method = explainer_class("grad_cam")(classifier.run(0))
    maps = method.explain(images, targets, seeds)        # [B, h, w], higher is more important

    learned = explainer_class("attention")(classifier, settings)
    learned.load(learned.fit(data, seeds))               # all runs of the classifier
    maps = learned.explain_runs(images, targets, seeds)  # [R, B, h, w]

One file per method, in the folder of its family: its settings, its card and its class. `check_explainer` (contract.py) is the
battery that each passes.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bla.base.specs import FORBID_EXTRA, Schedule
from bla.networks.classifier import Classifier
from bla.networks.patches import Grid, batch_size_for, cell_means

State = dict[str, Tensor]
"""What a learned method has learned, by name; every tensor has a leading run dimension R."""
Sets = list[list[list[int]]]
"""For each image its sets of cells, the best first; a set is a sorted list of the numbers of cells, row by row."""


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a reader should know of a method before using it.

    `sentence` says in one sentence what the map shows, `source` who proposed it, `needs` what it reads of the classifier,
    `cost` what one map costs, `proof` which tests show that it computes what it says.
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
    """What a learned method trains on.

    `features` `[D, N, n, C]` are D draws of the training images' features, n = h * w cells of the `grid`, in half precision;
    `images` uint8 `[N, H, W, 3]`; both may be None for a method that does not ask for them. `labels` int64 `[N]`, or multi-hot bool `[N, K]`. All may lie in memory maps; work is done
    on `device`. `first_epoch` goes on counting where the classifier's own training ended, so that further draws are met.
    """

    features: Tensor
    grid: Grid | None
    images: NDArray[np.uint8] | None
    labels: Tensor
    schedule: Schedule
    device: torch.device
    first_epoch: int = 0


class Explainer(ABC):
    """A method that explains a classifier."""

    title: ClassVar[str]
    card: ClassVar[Card]
    Settings: ClassVar[Any] = NoSettings
    learned: ClassVar[bool] = False
    control: ClassVar[bool] = False
    """Whether it knows nothing of the classifier, so that others must do better."""
    class_specific: ClassVar[bool] = True
    seeded: ClassVar[bool] = False
    """Whether maps depend on the images' seeds."""
    all_runs: ClassVar[bool] = False
    """Whether it takes a classifier of several runs, which `explain_runs` explains together."""
    linear_head: ClassVar[bool] = False
    """Whether the classifier must have a linear head on average-pooled features."""
    slow: ClassVar[bool] = False
    """Whether a map takes hundreds of forward passes."""
    backwards: ClassVar[int] = 0
    """Backward passes per explanation; forward passes are counted by the classifier (`Classifier.forwards`)."""

    def __init__(self, classifier: Classifier, settings: Any = None) -> None:
        assert classifier.runs == 1 or self.all_runs, "this method explains the classifier of one run (Classifier.run)"
        self.classifier = classifier
        self.settings = self.Settings() if settings is None else settings
        if self.linear_head:
            classifier.linear_head()  # raises BlaError

    @abstractmethod
    def explain(self, images: Tensor, targets: Tensor, seeds: Tensor) -> Tensor:
        """Maps `[B, h, w]`, float, higher is more important, at the method's own resolution, of the first run.

        `images` are uint8 `[B, H, W, 3]`; `targets` int64 `[B]` are the classes explained, which methods that are not
        `class_specific` ignore. `seeds` int64 `[B]` belong to the images, so that a method that draws random numbers
        gives an image the same map in any batch. All tensors are on the classifier's device.
        """

    def explain_runs(self, images: Tensor, targets: Tensor, seeds: Tensor) -> Tensor:
        """Maps `[R, B, h, w]` of every run, for targets `[R, B]`."""
        return torch.stack([self.run(run).explain(images, own, seeds) for run, own in enumerate(targets)])

    def run(self, number: int) -> Self:
        """The method on the classifier of one run."""
        return type(self)(self.classifier.run(number), self.settings)

    @torch.no_grad()
    def grid(self, images: Tensor) -> Grid:
        """Rows and columns of the feature map of such images."""
        rows, columns = self.classifier.extractor.feature_map(images[:1]).shape[2:]  # type: ignore[operator]
        return rows, columns


class LearnedExplainer(Explainer):
    """A method that is fitted to a classifier, for each of its runs, before it explains."""

    learned: ClassVar[bool] = True
    all_runs: ClassVar[bool] = True
    state: State

    @abstractmethod
    def fit(
        self, data: TrainingData, seeds: Sequence[int], progress: Callable[[int], object] = lambda runs: None
    ) -> State:
        """Train run r on run r of the classifier from `seeds[r]`; `progress` is called with the number of runs done.

        Returns the state on the CPU: the same seed gives the same state. Where it holds `losses` `[R, epochs]`, these are the
        training losses. The classifier stays as it is. Raises BlaError if a loss is not finite.
        """

    def load(self, state: Mapping[str, Tensor]) -> Self:
        """Take over a state that `fit` returned or a file holds; returns the method itself."""
        self.state = {name: value.to(self.classifier.device) for name, value in state.items()}
        return self

    def run(self, number: int) -> Self:
        """The method on the classifier of one run, with the state of that run."""
        only = slice(number, number + 1)
        return super().run(number).load({name: value[only] for name, value in self.state.items()})


class StructuredExplainer(Explainer):
    """A method that also returns sets of cells, each of which is an explanation."""

    @abstractmethod
    def explain_with_sets(self, images: Tensor, targets: Tensor, seeds: Tensor) -> tuple[Tensor, Sets]:
        """Maps as `explain` returns them, and for each image at least one set of cells of the grid, the best first."""

    def explain(self, images: Tensor, targets: Tensor, seeds: Tensor) -> Tensor:
        """The maps alone, `[B, h, w]`."""
        return self.explain_with_sets(images, targets, seeds)[0]


def explain_in_batches(explainer: Explainer, images: Tensor, targets: Tensor, seeds: Tensor) -> tuple[Tensor, Sets]:
    """Maps `[M, h, w]` of any number of images at the method's own resolution, on the CPU, and sets where there are any."""
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
    return torch.cat(maps), sets


def cell_maps(explainer: Explainer, images: Tensor, targets: Tensor, seeds: Tensor, grid: Grid) -> Tensor:
    """Maps of any number of images as means over the cells, `[B, n]` in double precision, on the CPU."""
    return cell_means(explain_in_batches(explainer, images, targets, seeds)[0].double(), grid).flatten(1)


def add_noise(images: Tensor, deviation: float, seeds: Tensor) -> Tensor:
    """The uint8 images with Gaussian noise of a standard deviation given for pixels in [0, 1], from the images' seeds."""
    noise = [torch.randn(images.shape[1:], generator=torch.Generator().manual_seed(seed)) for seed in seeds.tolist()]
    noisy = images.float() + 255 * deviation * torch.stack(noise).to(images.device)
    return noisy.round().clamp(0, 255).to(torch.uint8)
