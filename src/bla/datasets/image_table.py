"""Your own images with a table of labels: several classes per image, and masks of classes or parts.

images.csv         file,split,labels
                   img/1.jpg,train,cat|sofa
img/1.jpg          anywhere in the folder
masks/cat/img/1.png       the cat in img/1.jpg
masks/ear/img/1.png       a part; no file means that the image does not show it

listing = find(spec, Path("living_rooms"))
listing.splits["train"][0]     # ImageFile(name="img/1.jpg", label=(0, 3), masks=("masks/cat/img/1.png", ...))
"""

import os
from pathlib import Path, PurePosixPath

import pandas as pd

from bla.base.errors import BlaError
from bla.base.specs import ImageTable
from bla.datasets import OBJECT, SPLITS, ImageFile, Listing, SplitName
from bla.datasets.image_files import FORMATS
from bla.datasets.image_folder import refuse_shared_masks, refuse_unreadable_names

COLUMNS = ["file", "split", "labels"]


def find(spec: ImageTable, folder: Path) -> Listing:
    """The images of the table in its order, with their labels and masks; classes are sorted by name.

    Raises BlaError, naming the rows, for a file that is outside the folder, missing or listed twice, an unknown split,
    or a wrong number of labels; also for an unreadable table, fewer than two classes, a class without a training image,
    no test image with a label, or a mask that would belong to two images.
    """
    table = _read(folder / "images.csv")
    labels = [[name for name in (part.strip() for part in text.split("|")) if name] for text in table["labels"]]
    if spec.labels == "one":
        _check(folder, table, [len(names) == 1 for names in labels], "must have one label; or set labels to several")
    classes = sorted({name for names in labels for name in names})
    refuse_unreadable_names(folder / "images.csv", classes)
    if len(classes) < 2:
        raise BlaError(f"{folder / 'images.csv'}: {len(classes)} classes; a classifier needs at least two")
    trained = {name for names, split in zip(labels, table["split"], strict=True) for name in names if split == "train"}
    if missing := [name for name in classes if name not in trained]:
        raise BlaError(
            f"{folder / 'images.csv'}: no training image shows {', '.join(missing[:10])}; add one, or remove it"
        )
    mask_names = _mask_names(folder) if spec.masks else OBJECT
    splits: dict[SplitName, list[ImageFile]] = {split: [] for split in SPLITS}
    for file, split, names in zip(table["file"], table["split"], labels, strict=True):
        numbers = tuple(sorted({classes.index(name) for name in names}))
        masks = tuple(_mask(folder, name, file) for name in mask_names) if spec.masks else ()
        splits[split].append(ImageFile(file, numbers[0] if spec.labels == "one" else numbers, masks))
    refuse_shared_masks(folder, [file for files in splits.values() for file in files])
    if empty := [split for split in SPLITS if not splits[split]]:
        raise BlaError(f"{folder / 'images.csv'}: no image has the split {empty[0]}")
    if all(file.label == () for file in splits["test"]):
        raise BlaError(f"{folder / 'images.csv'}: no test image has a label; explanations are of classes, so label one")
    if spec.masks and not any(any(file.masks) for files in splits.values() for file in files):
        raise BlaError(f"{folder / 'masks'}: no mask belongs to an image; masks lie in masks/<name>/<file>.png")
    return Listing(folder, classes, splits, spec.masks, turned=True, mask_names=mask_names)


def _read(path: Path) -> pd.DataFrame:
    if path.exists() and not path.is_file():  # reading a pipe might never end
        raise BlaError(f"{path}: not a readable table (not a file); replace it")
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, skip_blank_lines=False)
    except FileNotFoundError as error:
        raise BlaError(f"{path}: no such file; it lists the images, with the columns {', '.join(COLUMNS)}") from error
    except (OSError, pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise BlaError(f"{path}: not a readable table ({error})") from error
    if missing := [name for name in COLUMNS if name not in table]:
        raise BlaError(f"{path}: no column {' and no column '.join(missing)}; it needs {', '.join(COLUMNS)}")
    if not isinstance(table.index, pd.RangeIndex):  # pandas made the first column an index
        raise BlaError(f"{path}: rows have more values than the header has columns; separate labels by |")
    table, folder = table[(table != "").any(axis=1)], path.parent
    files = table["file"].map(lambda name: str(PurePosixPath(name)))  # a/./b.jpg is a/b.jpg
    _check(folder, table, ~files.duplicated(), "is listed twice")
    _check(folder, table, table["split"].isin(SPLITS), "must have the split train or test")
    inside = [not PurePosixPath(name).is_absolute() and ".." not in PurePosixPath(name).parts for name in table["file"]]
    _check(folder, table, inside, "must lie in the folder of the table")
    suffixes = [PurePosixPath(name).suffix.lower() in FORMATS for name in table["file"]]
    _check(folder, table, suffixes, f"must be a {', '.join(FORMATS)} file")
    _check(folder, table, [(folder / name).is_file() for name in table["file"]], "is not there")
    return table


def _check(folder: Path, table: pd.DataFrame, right: "list[bool] | pd.Series", message: str) -> None:
    """Raise BlaError, naming up to ten rows, unless every row is right."""
    rows = zip(table["file"], table.index + 2, right, strict=True)  # row 1 is the header
    wrong = [f"{file} (row {row})" for file, row, good in rows if not good]
    if wrong:
        more = ", ..." if len(wrong) > 10 else ""
        raise BlaError(f"{folder / 'images.csv'}: {', '.join(wrong[:10])}{more} {message}")


def _mask_names(folder: Path) -> tuple[str, ...]:
    names = sorted(path.name for path in (folder / "masks").glob("*") if path.is_dir() and path.name[0] != ".")
    if not names:
        raise BlaError(
            f"{folder / 'masks'}: no folder of masks; masks lie in masks/<name>/<file>.png, or set masks to null"
        )
    refuse_unreadable_names(folder / "masks", names)
    return tuple(names)


def _mask(folder: Path, name: str, file: str) -> str | None:
    mask = f"masks/{name}/{PurePosixPath(file).with_suffix('.png')}"
    if os.path.lexists(folder / mask) and not (folder / mask).is_file():
        raise BlaError(
            f"{folder / mask}: not a file; replace it by a mask, or remove it if the image does not show {name}"
        )
    return mask if (folder / mask).is_file() else None
