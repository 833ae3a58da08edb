"""Photographs as inputs of a wrapped classifier, with names and, if their folder is named after a class, that class."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from bla.base.errors import BlaError
from bla.datasets.image_files import FORMATS, read_image
from bla.own_classifier.wrap import OwnClassifier

ImageInput = str | Path | Image.Image
Images = ImageInput | Sequence[ImageInput]
"""A file, a folder, a PIL image, or several of them."""


@dataclass(frozen=True, eq=False)
class Photos:
    """N inputs: `names`, `pixels` `[N, H, W, 3]` in [0, 255], and `expected` int64 `[N]`, the true classes, -1 where unknown."""

    names: tuple[str, ...]
    pixels: Tensor
    expected: NDArray[np.int64]


def read_photos(own: OwnClassifier, images: Images, progress: bool = True) -> Photos:
    """Read and transform images; a file's expected class is its folder's name, if the classifier has such a class.

    Names are paths relative to the folder that all files share. Raises BlaError for an unreadable file, for a folder
    without images, and if there are no images.
    """
    given = (
        [images] if isinstance(images, str | Path | Image.Image) or not isinstance(images, Iterable) else list(images)
    )
    if wrong := [item for item in given if not isinstance(item, str | Path | Image.Image)]:
        raise BlaError(
            f"images must be files, folders or PIL images, not {type(wrong[0]).__name__}; PIL's Image.fromarray makes one of "
            "uint8 [height, width, 3]"
        )
    found = [item for one in given for item in ([one] if isinstance(one, Image.Image) else files_of(Path(one)))]
    if not found:
        raise BlaError("there are no images to explain")
    paths = [item for item in found if isinstance(item, Path)]
    root = _root(paths, [Path(one) for one in given if not isinstance(one, Image.Image)])
    names, pixels, expected = [], [], []
    for number, item in enumerate(tqdm(found, "images", unit="img", disable=hidden(progress), leave=False)):
        image = item.convert("RGB") if isinstance(item, Image.Image) else Image.fromarray(read_image(item))
        names.append(
            f"image_{number}" if isinstance(item, Image.Image) else _absolute(item).relative_to(root).as_posix()
        )
        expected.append(own.find_label(_absolute(item).parent.name) if isinstance(item, Path) else -1)
        pixels.append(own.preparation.pixels(image))
    if wrong := [name for name in names if any("\ud800" <= letter <= "\udfff" for letter in name)]:
        raise BlaError(f"{wrong[0]!a}: the file's name is not UTF-8, so that nothing can be named after it; rename it")
    if len(set(names)) < len(names):
        raise BlaError(f"{max(names, key=names.count)}: this image is listed twice")
    whole = all(image.dtype == torch.uint8 for image in pixels)
    stacked = torch.stack(pixels if whole else [image.float() for image in pixels])
    return Photos(tuple(names), stacked, np.array(expected, np.int64))


def files_of(path: Path) -> list[Path]:
    """The file itself, or all JPEG and PNG files in a folder and its subfolders, sorted; BlaError if there is none, or no such path."""
    if not path.exists():
        raise BlaError(f"{path}: no such image or folder")
    if not path.is_dir():
        return [path]
    inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in FORMATS and p.is_file())
    files = [p for p in inside if not any(part.startswith(".") for part in p.relative_to(path).parts)]
    if not files:
        raise BlaError(f"{path}: no {', '.join(FORMATS)} image in this folder")
    return files


def _root(paths: Sequence[Path], given: Sequence[Path]) -> Path:
    """The folder to which names are relative."""
    if len(given) == 1 and given[0].is_dir():
        return _absolute(given[0])
    return Path(os.path.commonpath([_absolute(path).parent for path in paths])) if paths else Path()


def _absolute(path: Path) -> Path:
    """The path from the root, without `..`, which would lead out of the folder of results."""
    return Path(os.path.abspath(path))  # noqa: PTH100 (resolve follows links, whose folders name the classes)


def hidden(progress: bool) -> bool | None:
    """tqdm's `disable`: hidden on request, or if stderr is no terminal."""
    return None if progress else True
