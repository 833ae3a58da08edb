"""Cats vs Dogs: 23,262 photographs from Petfinder, given to Microsoft for its Asirra captcha and reused by Kaggle.

Elson et al. 2007, "Asirra: a CAPTCHA that exploits interest-aligned manual image categorization". For research alone,
under the Microsoft Research licence in the zip.

    kagglecatsanddogs_5340.zip   PetImages/Cat/0.jpg ... 12499.jpg, PetImages/Dog/0.jpg ... 12499.jpg

1,738 of the 25,000 files are dropped, as in the paper's TensorFlow dataset: those without the bytes `JFIF` among their
first 512, two of which are empty. This zip is newer than the paper; the paper's is no longer online. There is no
official split: ours is by a hash of the names, with the paper's 18,609 and 4,653 images.
"""

from pathlib import Path

from bla.base.download import Source, provide
from bla.base.specs import Photographs
from bla.datasets import ImageFile, Listing, SplitName, split_by_name
from bla.datasets.official import complete

SOURCES = (
    Source(
        "kagglecatsanddogs_5340.zip",
        (
            "https://download.microsoft.com/download/3/E/1/3E1C3F21-ECDB-4869-8368-6DEBA77B919F/kagglecatsanddogs_5340.zip",
        ),
        824_887_076,
        "sha256:b7974bd00a84a99921f36ee4403f089853777b5ae8d151c76a86e64900334af9",
    ),
)
COUNTS: dict[SplitName, int] = {"train": 18_609, "test": 4_653}
TEST_SHARE = 0.2


def find(spec: Photographs, folder: Path) -> Listing:
    """The images with `JFIF` in their first bytes, sorted by name; BlaError if their number differs from `COUNTS`."""
    unpacked = provide(SOURCES[0], folder)
    present = [
        (f"{animal}/{path.name}", label, _is_jfif(path))
        for label, animal in enumerate(("Cat", "Dog"))
        for path in sorted((unpacked / "PetImages" / animal).glob("[0-9]*.jpg"))
    ]
    valid = [(name, label) for name, label, whole in present if whole]
    print(f"cats_vs_dogs: left out {len(present) - len(valid):,} of {len(present):,} files, which have no JFIF header")
    splits: dict[SplitName, list[ImageFile]] = {"train": [], "test": []}
    for (name, label), split in zip(valid, split_by_name([name for name, _ in valid], TEST_SHARE), strict=True):
        splits[split].append(ImageFile(f"{unpacked.name}/PetImages/{name}", label))
    return complete(Listing(folder, ["cat", "dog"], splits), COUNTS, unpacked)


def _is_jfif(path: Path) -> bool:
    with path.open("rb", buffering=0) as file:
        return b"JFIF" in file.read(512)
