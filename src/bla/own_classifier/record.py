"""The result of `explain`: maps, hard explanations and probabilities of all images and methods, and how to save them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bla.base.arrays import load_npy
from bla.base.atomic import replacing, save_array, save_text
from bla.base.errors import BlaError
from bla.base.files import refuse_pipe
from bla.base.spreadsheet import FORMULA
from bla.own_classifier.wrap import versions

if TYPE_CHECKING:
    import pandas as pd

    from bla.plotting.sheet import Figure

Array = NDArray[np.float64]
SCHEMA = 2
"""The version of the manifest."""
ROWS_ON_A_SHEET = 20


def spreadsheet(table: "pd.DataFrame", index: bool = False) -> str:
    """The table as CSV, with an apostrophe in front of every text that a spreadsheet would run as a formula."""
    table = table.rename(columns=_no_formula).rename(index=_no_formula)
    return str(table.map(_no_formula).to_csv(index=index))


def _no_formula(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.lstrip("'")[:1] in FORMULA else value


@dataclass(frozen=True, eq=False)
class MethodResult:
    """One method's results for N images in R runs; methods that are not learned have one run.

    `maps` `[R, N, h, w]` at the method's own resolution; `hard` bool `[R, N, rows, columns]`, the explained cells of the
    feature map; `probabilities` `[R, N, K]` with the explained cells alone. A control ignores the classifier.
    """

    title: str
    settings: Any
    maps: Array
    hard: NDArray[np.bool_]
    probabilities: Array
    control: bool = False

    @property
    def mean(self) -> Array:
        """The mean map over runs, `[N, h, w]`."""
        return np.asarray(self.maps.mean(axis=0))

    @property
    def spread(self) -> Array:
        """The standard deviation over runs, `[N, h, w]`; NaN with one run."""
        if len(self.maps) == 1:
            return np.full_like(self.maps[0], np.nan)
        return np.asarray(self.maps.std(axis=0, ddof=1))


@dataclass(frozen=True, eq=False)
class ExplanationRecord:
    """The explanations of N images: `names`, the K `labels`, and `pixels` uint8 `[N, H, W, 3]` as the classifier sees them.

    `target`, `predicted` and `expected` int64 `[N]` are class numbers: explained, predicted with all cells, and true (-1
    where unknown). `probabilities` `[N, K]` are those with all cells. `results` holds a `MethodResult` by method.
    """

    names: tuple[str, ...]
    labels: tuple[str, ...]
    pixels: NDArray[np.uint8]
    target: NDArray[np.int64]
    predicted: NDArray[np.int64]
    expected: NDArray[np.int64]
    probabilities: Array
    results: Mapping[str, MethodResult]
    seed: int
    fingerprint: str

    def table(self) -> "pd.DataFrame":
        """A row per image, method and run: classes, and the target's probability with all and with the explained cells."""
        import pandas as pd

        rows = []
        for method, result in self.results.items():
            for run, of_run in enumerate(result.probabilities):
                for number, name in enumerate(self.names):
                    target, expected = self.target[number], self.expected[number]
                    rows.append(
                        {
                            "image": name,
                            "method": method,
                            "run": run,
                            "target": self.labels[target],
                            "predicted": self.labels[self.predicted[number]],
                            "expected": self.labels[expected] if expected >= 0 else None,
                            "predicted_with_explained_cells": self.labels[of_run[number].argmax()],
                            "probability": self.probabilities[number, target],
                            "probability_with_explained_cells": of_run[number, target],
                            "cells": int(result.hard[run, number].sum()),
                        }
                    )
        return pd.DataFrame(rows)

    def overlay(self, method: str, number: int) -> NDArray[np.uint8]:
        """Half image, half mean map, uint8 `[H, W, 3]`."""
        from bla.plotting.sheet import scaled_overlay

        mixed = scaled_overlay(self.pixels[number], self.results[method].mean[number])
        return np.asarray(255 * mixed + 0.5).astype(np.uint8)

    def figure(self, numbers: Sequence[int] | None = None) -> "Figure":
        """A contact sheet of some images (default: the first 20): a column per method, frames around cells that most runs explain."""
        from bla.plotting.sheet import contact_sheet

        rows = list(range(min(len(self.names), ROWS_ON_A_SHEET))) if numbers is None else list(numbers)
        if not rows:
            raise BlaError("numbers: a figure needs at least one image")
        maps = {result.title: result.mean[rows] for result in self.results.values()}
        hard = {result.title: result.hard[:, rows].mean(axis=0) >= 0.5 for result in self.results.values()}
        return contact_sheet(self.pixels[rows], maps, hard, [self._caption(number) for number in rows])

    def save(self, folder: Path | str) -> Path:
        """Write manifest, photographs, maps, overlays, contact sheets and the table to a new folder, and return it.

        `load_record` reads it. The manifest is written last: a folder without it is incomplete. Raises BlaError if the folder has something in it.
        """
        folder = Path(folder)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise BlaError(f"{folder}: exists and is not an empty folder; name another, or delete it")
        save_array(folder / "probabilities.npy", self.probabilities)
        for name, pixels in zip(self.names, self.pixels, strict=True):
            with replacing(folder / _photo(name)) as part:
                Image.fromarray(pixels).save(part, "PNG")
        files = {method: self._save_method(folder, method) for method in self.results}
        save_text(folder / "explanations.csv", spreadsheet(self.table()))
        save_text(
            folder / "manifest.json", json.dumps(self._manifest(files, self._save_sheets(folder)), indent=1) + "\n"
        )
        return folder

    def _caption(self, number: int) -> str:
        """Name, class and probability; numbers from 0 for names with letters that the font lacks (as in explanations.csv)."""
        from bla.plotting.sheet import drawable

        target, expected = self.target[number], self.expected[number]
        name = drawable(self.names[number], f"photograph {number}")
        label, true = (drawable(self.labels[of], f"class {of}") for of in (target, expected))
        truth = f", is {true}" if expected >= 0 and expected != target else ""
        return f"{name}: {label} {self.probabilities[number, target]:.2f}{truth}"

    def _save_method(self, folder: Path, method: str) -> list[dict[str, str]]:
        """Write a method's maps and overlays; their file names, image by image."""
        result, files = self.results[method], []
        save_array(folder / _probabilities(method), result.probabilities)
        for number, name in enumerate(self.names):
            of_image = {"map": f"maps/{method}/{name}.npy", "cells": f"cells/{method}/{name}.npy"}
            of_image["overlay"] = f"overlays/{method}/{name}.png"
            save_array(folder / of_image["map"], result.mean[number])
            save_array(folder / of_image["cells"], result.hard[:, number])
            if len(result.maps) > 1:
                of_image["runs"] = f"runs/{method}/{name}.npy"
                save_array(folder / of_image["runs"], result.maps[:, number])
            with replacing(folder / of_image["overlay"]) as part:
                Image.fromarray(self.overlay(method, number)).save(part, "PNG")
            files.append(of_image)
        return files

    def _save_sheets(self, folder: Path) -> list[str]:
        """Write the contact sheets; their names."""
        from bla.plotting.sheet import save_sheet

        names: list[str] = []
        for start in range(0, len(self.names) if self.results else 0, ROWS_ON_A_SHEET):
            figure = self.figure(range(start, min(start + ROWS_ON_A_SHEET, len(self.names))))
            names.append(f"contact_sheet_{len(names) + 1}.png")
            with replacing(folder / names[-1]) as part:
                save_sheet(figure, part)
        return names

    def _manifest(self, files: Mapping[str, list[dict[str, str]]], sheets: list[str]) -> dict[str, Any]:
        images = [
            {
                "image": name,
                "photograph": _photo(name),
                "target": self.labels[self.target[number]],
                "predicted": self.labels[self.predicted[number]],
                "expected": self.labels[self.expected[number]] if self.expected[number] >= 0 else None,
                "files": {method: of_method[number] for method, of_method in files.items()},
            }
            for number, name in enumerate(self.names)
        ]
        methods = {
            name: {
                "title": result.title,
                "settings": result.settings if isinstance(result.settings, dict) else asdict(result.settings),
                "control": result.control,
                "runs": len(result.maps),
                "map": list(result.maps.shape[2:]),
                "probabilities": _probabilities(name),
            }
            for name, result in self.results.items()
        }
        return {
            "schema": SCHEMA,
            "versions": versions(),
            "classifier": self.fingerprint,
            "labels": list(self.labels),
            "input": list(self.pixels.shape[1:3]),
            "seed": self.seed,
            "methods": methods,
            "images": images,
            "probabilities": "probabilities.npy",
            "table": "explanations.csv",
            "contact_sheets": sheets,
        }


def _photo(name: str) -> str:
    return f"photographs/{name}.png"


def _probabilities(method: str) -> str:
    return f"probabilities/{method}.npy"


def load_record(folder: Path | str) -> ExplanationRecord:
    """Read what `ExplanationRecord.save` wrote; settings are then dictionaries.

    Raises BlaError for a folder that it did not write, or in which a file is missing or damaged.
    """
    path = Path(folder) / "manifest.json"
    remedy = "run bla explain ... -o with another folder"
    try:
        refuse_pipe(path)
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if manifest["schema"] != SCHEMA:
            raise BlaError(f"{path}: has schema {manifest['schema']}, not {SCHEMA}; {remedy}")
        return _record(Path(folder), manifest)
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        named = getattr(error, "filename", None) or path
        raise BlaError(f"{named}: missing or damaged ({type(error).__name__}: {error}); {remedy}") from error


def _record(folder: Path, manifest: dict[str, Any]) -> ExplanationRecord:
    """The record of a manifest; any error for files that do not fit it."""
    images, labels = manifest["images"], tuple(manifest["labels"])
    number = {None: -1} | {label: place for place, label in enumerate(labels)}
    classes = {key: np.array([number[image[key]] for image in images]) for key in ("target", "predicted", "expected")}

    def read(name: str) -> NDArray[Any]:
        file = (folder / name).resolve()
        if not file.is_relative_to(folder.resolve()):
            raise ValueError(f"{name} lies outside the folder")
        try:
            refuse_pipe(file)
            array = np.asarray(Image.open(file).convert("RGB")) if file.suffix == ".png" else load_npy(file)
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise ValueError("holds NaN or infinite numbers")
            return array
        except (OSError, ValueError) as error:
            raise BlaError(
                f"{file}: missing or damaged ({error}); run bla explain ... -o with another folder"
            ) from error

    results = {}
    for name, about in manifest["methods"].items():
        files = [image["files"][name] for image in images]
        several = about["runs"] > 1
        maps = np.stack([read(paths["runs"]) if several else read(paths["map"])[None] for paths in files], axis=1)
        hard = np.stack([read(paths["cells"]) for paths in files], axis=1)
        probabilities = read(about["probabilities"])
        if (maps.ndim, hard.ndim) != (4, 4) or len({len(maps), len(hard), len(probabilities), about["runs"]}) > 1:
            raise ValueError(f"the arrays of {name} do not have {about['runs']} runs")
        if probabilities.shape != (about["runs"], len(images), len(labels)):
            raise ValueError(f"{about['probabilities']} has the shape {probabilities.shape}")
        results[name] = MethodResult(about["title"], about["settings"], maps, hard, probabilities, about["control"])
    probabilities = read(manifest["probabilities"])
    if probabilities.shape != (len(images), len(labels)):
        raise ValueError(f"{manifest['probabilities']} has the shape {probabilities.shape}")
    return ExplanationRecord(
        names=tuple(image["image"] for image in images),
        labels=labels,
        pixels=np.stack([read(image["photograph"]) for image in images]),
        **classes,
        probabilities=probabilities,
        results=results,
        seed=manifest["seed"],
        fingerprint=manifest["classifier"],
    )
