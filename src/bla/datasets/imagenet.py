"""ImageNet (ILSVRC 2012): 1,281,167 training and 50,000 validation photographs of 1,000 classes, from the user's disk.

Russakovsky et al. 2015, https://image-net.org. For non-commercial research, on request only: nothing is downloaded. The
user has either the unpacked `{train,val}/<wnid>/*.JPEG` or the official archives, which are unpacked to that layout:

    ILSVRC2012_img_train.tar        one n01440764.tar per class, which holds n01440764_10026.JPEG ...
    ILSVRC2012_img_val.tar          ILSVRC2012_val_00000001.JPEG ...
    ILSVRC2012_devkit_t12.tar.gz    ILSVRC2012_devkit_t12/data/: meta.mat, ILSVRC2012_validation_ground_truth.txt

Line i of the ground truth is the ILSVRC2012_ID of validation image i, which meta.mat turns into a WordNet id (wnid).
The validation images are our test split. Unpacking needs the archives' size again; if interrupted, it resumes.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from scipy.io import loadmat

from bla.base.download import unpack
from bla.base.errors import BlaError
from bla.base.specs import ImageNet
from bla.datasets import SPLITS, ImageFile, Listing, SplitName
from bla.datasets.image_folder import class_names

TRAIN, VAL = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"
DEVKIT = "ILSVRC2012_devkit_t12"
FOLDERS: dict[SplitName, str] = {"train": "train", "test": "val"}
COUNTS: dict[SplitName, int] = {"train": 1_281_167, "test": 50_000}


def find(spec: ImageNet, folder: Path) -> Listing:
    """The images sorted by wnid and name. A subset is allowed; a number other than `COUNTS` is reported.

    Raises BlaError if there is neither an unpacked split nor its archives, if the splits' classes differ, or if a class
    has no image.
    """
    missing = [name for name in ("train", "val") if not (folder / name).is_dir()]
    needed = {"train": [TRAIN], "val": [VAL, f"{DEVKIT}.tar.gz"]}
    absent = [name for part in missing for name in needed[part] if not (folder / name).is_file()]
    if absent:
        raise BlaError(
            f"{folder}: no {' and no '.join(f'{part}/' for part in missing)}, and no {', '.join(absent)} to unpack; ImageNet is "
            f"not downloaded: put here {{train,val}}/<wnid>/*.JPEG or the official archives from https://image-net.org"
        )
    if "train" in missing:
        _unpack_train(folder)
    if "val" in missing:
        _unpack_val(folder)
    classes = class_names(folder, ("train", "val"))
    splits = {split: list(_images(folder, FOLDERS[split], classes)) for split in SPLITS}
    for split, count in COUNTS.items():
        if len(splits[split]) != count:
            print(f"{folder}: {len(splits[split]):,} {split} images; the whole ImageNet 2012 has {count:,}")
    return Listing(folder, classes, splits)


def _images(folder: Path, part: str, classes: list[str]) -> Iterator[ImageFile]:
    for label, wnid in enumerate(classes):
        with os.scandir(folder / part / wnid) as entries:
            names = sorted(entry.name for entry in entries if entry.name.endswith(".JPEG") and entry.name[0] != ".")
        if not names:
            raise BlaError(f"{folder / part / wnid}: no .JPEG image in this class folder")
        for name in names:
            yield ImageFile(f"{part}/{wnid}/{name}", label)


def _unpack_train(folder: Path) -> None:
    unsorted = folder / "train.unsorted"
    if not unsorted.exists():
        unpack(folder / TRAIN, unsorted)
    for archive in sorted(unsorted.glob("*.tar")):
        if not archive.with_suffix("").exists():
            unpack(archive, archive.with_suffix(""))
        archive.unlink()
    unsorted.rename(folder / "train")


def _unpack_val(folder: Path) -> None:
    unsorted, devkit = folder / "val.unsorted", folder / "devkit.unpacked"
    if not devkit.exists():
        unpack(folder / f"{DEVKIT}.tar.gz", devkit)
    if not unsorted.exists():
        unpack(folder / VAL, unsorted)
    data = devkit / DEVKIT / "data"
    synsets = loadmat(data / "meta.mat", squeeze_me=True)["synsets"]
    wnids = {int(number): str(wnid) for number, wnid in zip(synsets["ILSVRC2012_ID"], synsets["WNID"], strict=True)}
    truth = (data / "ILSVRC2012_validation_ground_truth.txt").read_text().split()
    for path in sorted(unsorted.glob("*.JPEG")):
        number = int(path.stem.rsplit("_", 1)[1])
        class_folder = unsorted / wnids[int(truth[number - 1])]
        class_folder.mkdir(exist_ok=True)
        path.rename(class_folder / path.name)
    unsorted.rename(folder / "val")
    shutil.rmtree(devkit)
