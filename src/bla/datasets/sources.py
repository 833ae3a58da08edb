"""The source of a dataset's images, by its `kind`: image files, or a module that draws them."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from bla.base.arrays import load_npy
from bla.base.errors import BlaError
from bla.base.specs import (
    Coco,
    ImageFolder,
    ImageNet,
    ImageTable,
    Mnist,
    OxfordPet,
    PaintedBirds,
    PaintedFlock,
    PascalVoc,
    Photographs,
    height_and_width,
)
from bla.datasets import SPLITS, Listing, Split, SplitName, mixed

Files = Photographs | OxfordPet | PascalVoc | Coco | ImageNet | ImageFolder | ImageTable
Drawn = PaintedBirds | PaintedFlock | Mnist
NEARLY_ALL = 0.95
"""Masks that mark more than this share of most images are refused."""


def draw(spec: Drawn, seed: int, data_path: Callable[[str], Path]) -> tuple[list[str], dict[SplitName, Split]]:
    """Classes and both splits of a dataset that has no image files; MNIST's archives are downloaded to `data_path("mnist")`."""
    test = "validation" if spec.validation_images else "test"
    if isinstance(spec, PaintedBirds):
        from bla.datasets import painted_birds

        splits: dict[SplitName, Split] = {
            "train": painted_birds.generate(spec, "train", seed),
            "test": painted_birds.generate(spec, test, seed),
        }
        return painted_birds.class_names(spec.differ_in), splits
    if isinstance(spec, PaintedFlock):
        from bla.datasets import painted_flock

        flocks = [painted_flock.generate(spec, split, seed) for split in ("train", test)]
        return list(painted_flock.flock_species(spec)), dict(zip(SPLITS, flocks, strict=True))
    from bla.datasets import mnist

    return [str(digit) for digit in spec.classes], {s: mnist.load(spec, data_path("mnist"), s) for s in SPLITS}


def find(spec: Files, data_path: Callable[[str], Path]) -> Listing:
    """The image files of a dataset, downloaded to the data root if missing.

    Training images are in random order, so that blocks of neighbours are random samples. With `validation_images` the
    first of them are the test images.
    """
    # Imported here, because some of them take seconds to import.
    from bla.datasets import (
        caltech_birds,
        cats_vs_dogs,
        coco_2014,
        image_folder,
        image_table,
        imagenet,
        oxford_pet,
        stanford_dogs,
        voc_2007,
    )

    if isinstance(spec, ImageFolder):
        listing = image_folder.find(spec, data_path(spec.path))
    elif isinstance(spec, ImageTable):
        listing = image_table.find(spec, data_path(spec.path))
    elif isinstance(spec, ImageNet):
        listing = imagenet.find(spec, data_path(spec.path))
    elif isinstance(spec, OxfordPet):
        listing = oxford_pet.find(spec, data_path(spec.kind))
    elif isinstance(spec, PascalVoc):
        listing = voc_2007.find(spec, data_path(spec.kind))
    elif isinstance(spec, Coco):
        listing = coco_2014.find(spec, data_path(spec.kind))
    else:
        modules = {"cats_vs_dogs": cats_vs_dogs, "stanford_dogs": stanford_dogs, "caltech_birds": caltech_birds}
        listing = modules[spec.kind].find(spec, data_path(spec.kind))
    listing.splits["train"] = mixed(listing.splits["train"])
    if (count := spec.validation_images) is not None:
        files = listing.splits["train"]
        if count >= len(files):
            raise BlaError(f"validation_images: {count:,} of {len(files):,} training images leave none to train on")
        listing.splits.update({"train": files[count:], "test": files[:count]})
    return listing


def fill_images(store: Path, spec: Files, listing: Listing, split: SplitName) -> list[Any]:
    """Read the images of a split, and their masks if there are any, into `store`; a killed stage resumes.

    Returns for each image the file's hash, its conversion to RGB, and its height and width. BlaError names all unusable
    files.
    """
    from bla.datasets.image_files import read_images
    from bla.runtime.cache import fill_store

    files, size = listing.splits[split], height_and_width(spec.image_size)
    arrays: dict[str, tuple[tuple[int, ...], Any]] = {"images": ((len(files), *size, 3), np.uint8)}
    arrays |= {"masks": ((len(files), len(listing.mask_names), *size), np.bool_)} if listing.masks else {}

    def chunks(start: int) -> Iterator[tuple[list[NDArray[Any]], list[Any]]]:
        with tqdm(total=len(files), initial=start, desc=f"read {split} images", unit="img", disable=None) as bar:
            usable = True
            for part in read_images(listing, split, size, spec.resize, start):
                usable = usable and all(part.sha256)
                if usable:  # the store holds only good images, so a resumed stage tries the bad ones again
                    pixels: list[NDArray[Any]] = [part.images] if part.masks is None else [part.images, part.masks]
                    yield pixels, [*zip(part.sha256, part.treatment, part.shapes.tolist(), strict=True)]
                bar.update(len(part.images))

    notes = fill_store(store, arrays, len(files), chunks)
    if listing.masks:
        _check_masks(load_npy(store / "masks.npy", "r"), listing.masks, split)
    return notes


def _check_masks(masks: NDArray[np.bool_], kind: str, split: SplitName) -> None:
    """Raise BlaError if most masks `[N, S, H, W]` mark nearly the whole image, or half of it with all corners, as inverted ones do."""
    parts = np.array_split(masks, -(-len(masks) // 256))
    shares = np.concatenate([part.mean(axis=(2, 3)).ravel() for part in parts])
    corners = masks[..., [0, 0, -1, -1], [0, -1, 0, -1]].all(axis=-1).ravel()
    marked = shares > 0
    wrong = {
        f"more than {NEARLY_ALL:.0%} of their image": shares > NEARLY_ALL,
        "the four corners and more than half of their image": corners & (shares > 0.5),
    }
    for what, which in wrong.items():
        if which.sum() > marked.sum() / 2:
            raise BlaError(
                f"masks: {which.sum():,} of {marked.sum():,} {split} masks mark {what}; they may be "
                f"inverted, or of another kind than {kind} (binary, trimap, voc, alpha)"
            )


def file_states(listing: Listing, split: SplitName) -> list[object]:
    """What decides a split's arrays: each file's name, label, masks, size and time."""
    names = [(file.name, file.label, file.masks) for file in listing.splits[split]]
    files = [name for file in listing.splits[split] for name in (file.name, *file.masks) if name]
    return [str(listing.folder.resolve()), split, names, [_state(listing.folder / name) for name in files]]


def _state(path: Path) -> tuple[int, int] | None:
    """Size and time of a file; None for one that is missing."""
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_size, state.st_mtime_ns
