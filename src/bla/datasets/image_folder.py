"""Your own images: a folder laid out as `{train,test}/<class>/*.jpg` (or .jpeg, .png).

    test = load(ImageFolder("image_folder", "photos", image_size=224), Path("photos"), "test")

Classes are the sorted names of the folders under `train`; images are read in the sorted order of their paths.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np
from tqdm import tqdm

from bla.datasets import Split
from bla.errors import BlaError
from bla.imagefiles import FORMATS, load_image
from bla.specs import ImageFolder


def class_names(folder: Path) -> list[str]:
    """The sorted class folders under `folder/train`; BlaError if there are fewer than two, or `test` has others."""
    found = {}
    for split in ("train", "test"):
        if not (folder / split).is_dir():
            raise BlaError(f"{folder / split}: no such folder; images belong in {folder}/{{train,test}}/<class>/*.jpg")
        found[split] = sorted(p.name for p in (folder / split).iterdir() if p.is_dir() and not p.name.startswith("."))
    if len(found["train"]) < 2:
        raise BlaError(f"{folder / 'train'}: {len(found['train'])} class folders; a classifier needs at least two")
    if found["train"] != found["test"]:
        odd = ", ".join(sorted(set(found["train"]) ^ set(found["test"])))
        raise BlaError(f"{folder}: train and test must have the same class folders; only one of them has {odd}")
    return found["train"]


def image_files(folder: Path, split: str, images_per_class: int | None = None) -> list[tuple[Path, int]]:
    """The image files of a split with their labels; BlaError for a class folder that holds no image.

    `images_per_class` keeps the first that many of every class (sorted by name); None keeps all.
    """
    files: list[tuple[Path, int]] = []
    for label, name in enumerate(class_names(folder)):
        present = sorted(p for p in (folder / split / name).iterdir() if p.name[0] != ".")
        own = [path for path in present if path.suffix.lower() in FORMATS]
        others = [path.name for path in present if path.suffix.lower() not in FORMATS]
        if others:
            print(f"{folder / split / name}: left out, since only {', '.join(FORMATS)} are read: {', '.join(others)}")
        if not own:
            raise BlaError(f"{folder / split / name}: no {', '.join(FORMATS)} image in this class folder")
        files += [(path, label) for path in own[:images_per_class]]
    return files


def load(spec: ImageFolder, folder: Path, split: Literal["train", "test"]) -> Split:
    """Read a split of `folder`; BlaError names every unreadable image (none is skipped or replaced)."""
    files = image_files(folder, split, spec.train_images_per_class if split == "train" else None)
    images = np.empty((len(files), spec.image_size, spec.image_size, 3), np.uint8)
    problems: list[str] = []

    def read(i: int) -> None:
        try:
            images[i] = load_image(files[i][0], spec.image_size, spec.resize)
        except BlaError as error:
            problems.append(str(error))

    with ThreadPoolExecutor() as pool:
        list(tqdm(pool.map(read, range(len(files))), f"read {split} images", len(files), unit="img", disable=None))
    if problems:
        raise BlaError("\n".join(sorted(problems)))
    labels = np.array([label for _, label in files], np.int64)
    return Split(images, labels, None, [path.relative_to(folder).as_posix() for path, _ in files])
