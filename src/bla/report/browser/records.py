"""What the explanation browser shows: images, predictions and maps, as plain arrays.

bl = Predictions(classes=[1, 0], probabilities=[0.9, 0.6], losses=[0.1, 0.9], right=[True, False])
cam = Method("cam", "CAM", maps, bl)
own = Collection("own", images, ["a.jpg", "b.jpg"], ["cat", "dog"], np.array([1, 1]), [cam])
"""

from collections.abc import Sequence, Sized
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bla.base.errors import BlaError

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Predictions:
    """What a classifier says of N images: the most probable class, its probability, the loss (nats) and whether it is right.

    `losses` are NaN, and `right` is None, where the true classes are unknown.
    """

    classes: NDArray[np.int64]
    probabilities: Floats
    losses: Floats
    right: NDArray[np.bool_] | None


@dataclass(frozen=True)
class Method:
    """The maps `[N, h, w]` of a method, all NaN for images that it did not explain, and the predictions that it explains.

    `kept` bool `[N, h, w]` are the cells that an explanation keeps, `explained` `[N]` the class of each map, `spread` `[N]`
    the `mean_distance` between runs; each is None where it does not exist. Controls take no part in the disagreement.
    """

    name: str
    title: str
    maps: Floats
    predictions: Predictions
    kept: NDArray[np.bool_] | None = None
    explained: NDArray[np.int64] | None = None
    spread: Floats | None = None
    control: bool = False

    @property
    def computed(self) -> NDArray[np.bool_]:
        """Whether each image `[N]` has a map."""
        return np.asarray(~np.isnan(self.maps).all(axis=(1, 2)))


@dataclass(frozen=True)
class Collection:
    """Images uint8 `[N, H, W, 3]` of one dataset, their file names, and the maps of its methods, all in one grid.

    `labels` are int64 `[N]`, numbers in `classes`, or multi-hot bool `[N, K]`; all False if the classes are unknown.
    """

    name: str
    images: NDArray[np.uint8]
    files: Sequence[str]
    classes: Sequence[str]
    labels: NDArray[np.int64] | NDArray[np.bool_]
    methods: Sequence[Method]

    def check(self) -> None:
        """Raise BlaError, naming the method, if its arrays do not fit the images."""
        count = len(self.images)
        for what, values in (("file names", self.files), ("labels", self.labels)):
            if len(values) != count:
                raise BlaError(f"{self.name}: {len(values)} {what} for {count} images; give one for each image")
        if not self.methods:
            raise BlaError(f"{self.name}: has no methods; give the maps of at least one")
        names = [method.name for method in self.methods]
        if len(set(names)) < len(names):
            raise BlaError(f"{self.name}: two methods have the same name: {', '.join(names)}")
        for method in self.methods:
            self._check(method, (count, *self.methods[0].maps.shape[1:]))

    def _check(self, method: Method, shape: tuple[int, ...]) -> None:
        given, maps = method.predictions, method.maps
        if maps.ndim != 3 or maps.shape != shape:
            raise BlaError(
                f"{self.name}: the maps of {method.name} are {list(maps.shape)}, not {list(shape)}; "
                f"give a map for each image, NaN where there is none, and average all methods' maps over the same cells"
            )
        if not np.isfinite(maps[method.computed]).all():
            raise BlaError(
                f"{self.name}: {method.name}: NaN or infinite numbers within a map; a map is all NaN or finite"
            )
        if method.kept is not None and method.kept.shape != shape:
            raise BlaError(
                f"{self.name}: the kept cells of {method.name} are {list(method.kept.shape)}, not {list(shape)}"
            )
        columns: dict[str, Sized | None] = {"classes": given.classes, "probabilities": given.probabilities}
        columns |= {
            "losses": given.losses,
            "right": given.right,
            "explained": method.explained,
            "spread": method.spread,
        }
        for what, values in columns.items():
            if values is not None and len(values) != shape[0]:
                raise BlaError(f"{self.name}: {method.name}: {len(values)} numbers in {what} for {shape[0]} images")


def shares(maps: Floats) -> Floats:
    """Maps `[..., h, w]` as signed shares of their absolute weight: |share| sums to 1 in a map, or is 0 in a map of zeros."""
    weight = np.abs(maps).sum(axis=(-2, -1), keepdims=True)
    return maps / np.where(weight > 0, weight, 1)


def mean_distance(maps: Floats) -> Floats:
    """How far maps `[S, N, h, w]` of S methods or runs differ: a number in [0, 1] for each image `[N]`, NaN if S = 1.

    The mean over pairs of half the sum of |p - q| over cells, where p and q are `shares`: 0 if all weight lies on the same
    cells, 1 if no weight does. (Total variation distance, for maps without negative numbers.)
    """
    count = len(maps)
    if count < 2:
        return np.full(maps.shape[1], np.nan)
    # Of sorted numbers, the k-th is the larger one in k pairs and the smaller one in S - 1 - k pairs.
    ordered = np.sort(shares(maps), axis=0)
    total = np.tensordot(2.0 * np.arange(count) - (count - 1), ordered, 1).sum(axis=(-2, -1))
    pairs = count * (count - 1) / 2
    distance: Floats = total / 2 / pairs
    return distance
