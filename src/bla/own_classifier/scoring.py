"""The metrics of `bla.metrics` on maps of a record, and beside them on maps that were made elsewhere.

table = score(classifier, record, {"theirs": "their_maps"})      # their_maps/cat.jpg.npy or their_maps/cat.npy
summary(table)                                                   # a row per metric, a column per method
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from bla.base.arrays import load_npy
from bla.base.errors import BlaError
from bla.metrics import BY_NAME, METRICS
from bla.metrics.measure import Subject, measure
from bla.networks.patches import cell_means
from bla.own_classifier.explaining import MethodInput, as_method, explain, name_of
from bla.own_classifier.photos import Images, read_photos
from bla.own_classifier.record import ExplanationRecord
from bla.own_classifier.wrap import OwnClassifier, check_wrapped
from bla.runtime.seeds import derive_seed

Array = NDArray[np.float64]
CELLS_AT_ONCE = 7
ORDERS = 3
"""As in params.yaml: cells between two points of a curve, of a map of 49; random orders of tied cells."""
OF_TRUE_CLASS = ("accuracy_image", "loss_image", "accuracy_features", "loss_features")


def score(
    own: OwnClassifier,
    record: ExplanationRecord,
    maps: Mapping[str, Path | str | Sequence[Array] | Array] | None = None,
    *,
    masks: NDArray[np.bool_] | None = None,
    curves: bool = True,
) -> pd.DataFrame:
    """Scores of the record's methods and of other `maps` by name: columns method, metric, image, value.

    Other maps `[h, w]`, higher is more important, are a folder of .npy files named after the images, or an array for each
    image in the record's order; they explain the record's targets. They lie on the classifier's input, and have its sides,
    the grid of its cells, or a resolution of the same proportions at least as fine as the grid. `masks` bool `[N, H, W]` of
    the object, on the input, add localisation; `curves` deletion and insertion, which take most of the time. Accuracy
    and loss are measured if all true classes are known. A method of several runs has the mean over its runs. Raises
    BlaError for a missing or damaged file and for a map of another shape.
    """
    check_wrapped(own)
    subject = _subject(own, record, masks)
    hard, all_maps = {}, {}
    for name, result in record.results.items():
        for run, of_run in enumerate(result.maps):
            all_maps[name, run] = _cells(own, of_run)
            hard[name, run] = result.hard[run].reshape(len(record.names), -1)
    for name, given in (maps or {}).items():
        if name in record.results:
            raise BlaError(f"{name}: the record has a method of this name; name the other maps differently")
        all_maps[name, 0] = _cells(own, _other_maps(own, record, name, given))
    if not all_maps:
        raise BlaError("there are no maps to score")
    keys = {f"{name}\n{run}": (name, run) for name, run in all_maps}
    slow = np.full(len(record.names), curves)
    scores, _ = measure(
        subject,
        {key: all_maps[pair] for key, pair in keys.items()},
        {key: hard[pair] for key, pair in keys.items() if pair in hard},
        slow,
        max(1, round(CELLS_AT_ONCE * own.grid[0] * own.grid[1] / 49)),
        ORDERS,
    )
    scores["method"] = scores["method"].map(lambda key: keys[key][0])
    if (record.expected < 0).any():
        scores = scores[~scores["metric"].isin(OF_TRUE_CLASS)]
    by_image = scores.groupby(["method", "metric", "image"], sort=False)["value"]
    scores = by_image.mean(skipna=False).reset_index()
    scores["image"] = scores["image"].map(lambda number: record.names[number])
    return scores


def compare(
    own: OwnClassifier,
    images: Images,
    methods: Sequence[MethodInput],
    maps: Mapping[str, Path] | None = None,
    *,
    seed: int = 0,
    curves: bool = True,
    progress: bool = True,
) -> tuple[ExplanationRecord, pd.DataFrame]:
    """Explain images with several methods, and score them beside folders of other `maps`: the record and the scores."""
    photos = read_photos(own, images, progress)
    chosen = [as_method(method) for method in methods]
    _check_maps(photos.names, [name_of(method) for method in chosen], maps or {})
    record = explain(own, photos, chosen, seed=seed, progress=progress)
    return record, score(own, record, maps, curves=curves)


def summary(scores: pd.DataFrame) -> pd.DataFrame:
    """Means over images: a row per metric, with its title and the better direction, and a column per method.

    They are over the same images for every method, those for which any has a score; a method that lacks one has no mean.
    """
    order = [metric.name for metric in METRICS if metric.name in set(scores["metric"])]
    by_image = scores.pivot(index=["metric", "image"], columns="method", values="value").dropna(how="all")
    means = by_image.groupby("metric").mean().where(by_image.notna().groupby("metric").all()).reindex(order)
    means = means[list(dict.fromkeys(scores["method"]))]
    means.insert(0, "better", [BY_NAME[name].better for name in order])
    means.index = pd.Index([BY_NAME[name].title for name in order], name="metric")
    return means


def _check_maps(names: Sequence[str], methods: Sequence[str], maps: Mapping[str, Path]) -> None:
    """BlaError, before the work, if a folder of other maps has a method's name, or no readable map of an image."""
    for name, folder in maps.items():
        if name in methods:
            raise BlaError(f"{name}: we have a method of this name; name the folder of the other maps differently")
        for image in names:
            _load(folder, image)


def _subject(own: OwnClassifier, record: ExplanationRecord, masks: NDArray[np.bool_] | None) -> Subject:
    if record.fingerprint != own.fingerprint:
        raise BlaError("the record was made with another classifier, or kind of scores; explain the images again")
    if masks is not None and (masks.shape != record.pixels.shape[:3] or masks.dtype != np.bool_):
        raise BlaError(
            f"masks must be bool {list(record.pixels.shape[:3])}, as the inputs, not {masks.dtype} {list(masks.shape)}"
        )
    device = own.classifier.device
    pixels = torch.from_numpy(record.pixels).to(device)
    with torch.no_grad():
        parts = [own.classifier.features(part).flatten(2).transpose(1, 2) for part in pixels.split(64)]
    known = not (record.expected < 0).any()
    labels = record.expected if known else record.target
    seeds = [derive_seed(record.seed, "orders", name) for name in record.names]
    return Subject(own.classifier, pixels, labels, record.target, seeds, torch.cat(parts), own.grid, masks)


def _cells(own: OwnClassifier, maps: Array) -> Array:
    """Means over the cells, `[N, n]`."""
    return np.asarray(cell_means(torch.from_numpy(maps).double(), own.grid).flatten(1).numpy())


def _other_maps(
    own: OwnClassifier, record: ExplanationRecord, name: str, given: Path | str | Sequence[Array] | Array
) -> Array:
    """Maps of all images on the cells, `[N, rows, columns]`."""
    if isinstance(given, str | Path):
        loaded = [_load(Path(given), image) for image in record.names]
    else:
        loaded = [(np.asarray(values), f"{name}: {image}") for values, image in zip(given, record.names, strict=False)]
        if len(given) != len(record.names):
            raise BlaError(f"{name}: {len(given)} maps for {len(record.names)} images")
    return np.stack([_on_cells(own, values, place) for values, place in loaded])


def _load(folder: Path, image: str) -> tuple[Array, str]:
    paths = [folder / f"{image}.npy", (folder / image).with_suffix(".npy")]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        raise BlaError(
            f"{folder}: no map of {image}; it must be named {image}.npy or {Path(image).with_suffix('.npy')}"
        )
    try:
        return load_npy(path), str(path)
    except (OSError, ValueError) as error:
        raise BlaError(
            f"{path}: not a readable .npy file of numbers ({error}); save it again with numpy.save"
        ) from error


def _on_cells(own: OwnClassifier, values: Array, place: str) -> Array:
    """One map on the cells; BlaError unless it is `[h, w]`, of finite numbers, and has a shape that fits the input."""
    (rows, columns), (height, width) = own.grid, own.preparation.size
    if values.ndim != 2 or values.dtype.kind not in "fiu":
        raise BlaError(f"{place}: a map must be [height, width] of numbers, not {values.dtype} {list(values.shape)}")
    h, w = values.shape
    same_shape = abs(h * width - w * height) < max(height, width)
    if (h, w) != own.grid and not (h >= rows and w >= columns and same_shape):
        raise BlaError(
            f"{place}: a map of {h} x {w} does not fit inputs of {height} x {width} pixels with {rows} x {columns} cells (height x "
            "width); make maps of the transformed image, and do not transpose them"
        )
    if not np.isfinite(values).all():
        raise BlaError(f"{place}: the map holds NaN or infinite numbers")
    return np.asarray(cell_means(torch.from_numpy(values.astype(np.float64))[None], own.grid)[0].numpy())
