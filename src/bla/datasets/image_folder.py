"""Your own images: a folder laid out as `{train,test}/<class>/*.jpg` (or .jpeg, .png), or as `<class>/*.jpg`.

    listing = find(ImageFolder(kind="image_folder", path="photos", image_size=224), Path("photos"))
    listing.splits["test"][0]  # ImageFile(name="test/cat/1.jpg", label=0)

Classes are the sorted names of the folders; the images of a class are sorted by name. With a `test_share` the classes
lie in the folder itself and a hash of `<class>/<file>` decides the split, so it survives moving the folder. With
`masks`, the mask of `train/cat/1.jpg` is `masks/train/cat/1.png`, and that of `cat/1.jpg` is `masks/cat/1.png`. A
folder `masks` that has images itself is a class, too.
"""

import os
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from bla.base.errors import BlaError
from bla.base.specs import ImageFolder
from bla.datasets import SPLITS, ImageFile, Listing, SplitName, split_by_name
from bla.datasets.image_files import FORMATS

INVISIBLE = {*map(chr, range(0xFE00, 0xFE10)), *"\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0"}
"""Variation selectors, and letters without ink; Unicode counts neither as format characters."""

Named = list[tuple[int, str]]
"""Labels and names of images, class by class."""


def find(spec: ImageFolder, folder: Path) -> Listing:
    """The images of a folder with their labels and, if the spec says so, masks.

    Raises BlaError for a missing folder, fewer than two classes, splits with different classes, a class without an
    image in a split, and missing masks.
    """
    if spec.test_share is None:
        classes = class_names(folder, SPLITS, ())
        named = {split: _images(folder, f"{split}/", classes) for split in SPLITS}
    else:
        if all((folder / split).is_dir() for split in SPLITS):
            raise BlaError(f"{folder}: has train and test folders, so test_share must be null")
        is_class = any(path.suffix.lower() in FORMATS for path in (folder / "masks").glob("*"))
        classes = class_names(folder, (), () if is_class else ("masks",))
        named = _divide(folder, classes, spec.test_share)
    if spec.train_images_per_class is not None:
        by_class = [[row for row in named["train"] if row[0] == label] for label in range(len(classes))]
        named["train"] = [row for rows in by_class for row in rows[: spec.train_images_per_class]]

    def image(label: int, name: str) -> ImageFile:
        return ImageFile(name, label, (f"masks/{PurePosixPath(name).with_suffix('.png')}",) if spec.masks else ())

    splits = {split: [image(*row) for row in rows] for split, rows in named.items()}
    refuse_shared_masks(folder, [file for files in splits.values() for file in files])
    masks = [mask for files in splits.values() for file in files for mask in file.masks if mask]
    missing = [mask for mask in masks if not (folder / mask).is_file()]
    if missing:
        names = ", ".join(missing[:10]) + (", ..." if missing[10:] else "")
        raise BlaError(f"{folder}: {len(missing):,} of {len(masks):,} masks are missing: {names}")
    return Listing(folder, classes, splits, spec.masks, turned=True)


def class_names(folder: Path, splits: tuple[str, ...], others: tuple[str, ...] = ()) -> list[str]:
    """The sorted class folders in each of the splits or, without splits, in the folder itself, without `others`.

    Raises BlaError if there are fewer than two, or if the splits differ.
    """
    layout = f"{folder}/{{{','.join(splits)}}}/<class>/*.jpg" if splits else f"{folder}/<class>/*.jpg"
    classes_by_split: list[list[str]] = []
    places = [folder / split for split in splits] or [folder]
    for place in places:
        if not place.is_dir():
            raise BlaError(f"{place}: no such folder; images belong in {layout}")
        if broken := [path for path in place.iterdir() if path.is_symlink() and not path.exists()]:
            raise BlaError(f"{broken[0]}: a link to nothing; remove it, or create its target")
        folders = [path for path in place.iterdir() if path.is_dir() and path.name not in others]
        classes_by_split.append(sorted(path.name for path in folders if path.name[0] != "."))
        refuse_unreadable_names(place, classes_by_split[-1])
    if len(classes_by_split[0]) < 2:
        raise BlaError(f"{places[0]}: {len(classes_by_split[0])} class folders; a classifier needs at least two")
    only_in_one = sorted(set(classes_by_split[0]) ^ set(classes_by_split[-1]))
    if only_in_one:
        refuse_unreadable_names(folder, only_in_one)
        names = ", ".join(only_in_one[:10]) + (", ..." if only_in_one[10:] else "")
        raise BlaError(
            f"{folder}: {' and '.join(splits)} must have the same class folders; only one of them has {names}"
        )
    return classes_by_split[0]


def refuse_shared_masks(folder: Path, files: Iterable[ImageFile]) -> None:
    """Raise BlaError for a mask file that is listed for two images, such as `1.png` for `1.jpg` and `1.png`."""
    image_of: dict[str, str] = {}
    for file in files:
        for mask in filter(None, file.masks):
            if (other := image_of.setdefault(mask, file.name)) != file.name:
                raise BlaError(
                    f"{folder}: {mask} would be the mask of two images, {other} and {file.name}, since a mask has the name of "
                    "its image without the ending; rename one of them"
                )


def refuse_unreadable_names(place: Path, names: Sequence[str]) -> None:
    """Raise BlaError for a name that is not UTF-8 or has a line break, and for two that look the same but are spelt otherwise."""
    seen: dict[str, str] = {}
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise BlaError(f"{place}: the name {os.fsencode(name)!r} is not UTF-8; rename it") from error
        if name.splitlines() != [name]:
            raise BlaError(f"{place}: the name {name!r} has a line break, which would begin a row of tables; rename it")
        visible = "".join(letter for letter in name if unicodedata.category(letter) != "Cf" and letter not in INVISIBLE)
        other = seen.setdefault(" ".join(unicodedata.normalize("NFC", visible).split()), name)  # all spaces look alike
        if other != name:
            spelt = " and ".join(" ".join(f"U+{ord(letter):04X}" for letter in text) for text in (other, name))
            raise BlaError(f"{place}: two names look the same, {name}, but are spelt {spelt}; rename one of them")


def _images(folder: Path, place: str, classes: list[str]) -> Named:
    """The images of every class in `folder/place`, sorted by name; other files are reported.

    Raises BlaError for a class folder without an image.
    """
    rows: Named = []
    for label, name in enumerate(classes):
        class_folder = folder / place / name
        present = sorted(path.name for path in class_folder.iterdir() if path.name[0] != ".")
        refuse_unreadable_names(class_folder, present)
        images = [file for file in present if PurePosixPath(file).suffix.lower() in FORMATS]
        if len(images) < len(present):
            others = ", ".join(sorted(set(present) - set(images)))
            print(
                f"{class_folder}: {len(present) - len(images)} files left out, since only {', '.join(FORMATS)} are read: {others}"
            )
        if not images:
            raise BlaError(f"{class_folder}: no {', '.join(FORMATS)} image in this class folder")
        rows += [(label, f"{place}{name}/{file}") for file in images]
    return rows


def _divide(folder: Path, classes: list[str], test_share: float) -> dict[SplitName, Named]:
    """The images of a folder without splits, split by a hash of their names; BlaError if a class is missing in a split."""
    rows = _images(folder, "", classes)
    named: dict[SplitName, Named] = {split: [] for split in SPLITS}
    for row, split in zip(rows, split_by_name([name for _, name in rows], test_share), strict=True):
        named[split].append(row)
    for split, names in named.items():
        lacking = sorted(set(range(len(classes))) - {label for label, _ in names})
        if lacking:
            class_list = ", ".join(classes[label] for label in lacking)
            raise BlaError(
                f"{folder}: with test_share {test_share} no image falls into the {split} split of {class_list}; add images, change "
                "test_share, or lay the folder out as {train,test}/<class>"
            )
    return named
