"""Stanford Dogs: 20,580 photographs of 120 breeds, 12,000 of them for training, with a box around every dog.

Khosla et al. 2011, "Novel dataset for fine-grained image categorization",
http://vision.stanford.edu/aditya86/ImageNetDogs. The images come from ImageNet: their copyright is with whoever took
them, use is for research. A backbone that was trained on ImageNet has seen some of them, of the test split too.

    images.tar       Images/n02085620-Chihuahua/n02085620_5927.jpg
    lists.tar        train_list.mat, test_list.mat: `file_list` names the images of a split, class by class
    annotation.tar   Annotation/n02085620-Chihuahua/n02085620_5927: XML in the format of PASCAL VOC, one object or more

Boxes are as annotated, in pixels of the image size that the annotation states.
"""

from pathlib import Path

import numpy as np
from scipy.io import loadmat

from bla.base.download import Source, provide
from bla.base.specs import Photographs
from bla.datasets import ImageFile, Listing, SplitName
from bla.datasets.official import complete, object_boxes

_SITE = "https://vision.stanford.edu/aditya86/ImageNetDogs"
SOURCES = (
    Source(
        "images.tar",
        (f"{_SITE}/images.tar",),
        793_579_520,
        "sha256:a443fc2f9a851aa1a7b8e4fa4af94b8459fce2c9f5a2f4dd4669cf9673a4ec58",
    ),
    Source(
        "lists.tar",
        (f"{_SITE}/lists.tar",),
        481_280,
        "sha256:34b47cacd9a98b5d150e084f24d29391c084c55272295ec65c85651bc35f4d6c",
    ),
    Source(
        "annotation.tar",
        (f"{_SITE}/annotation.tar",),
        21_852_160,
        "sha256:662ed36f707be6b195c2fda392d8e153e83af28cedc8e2134a649f198def30fd",
    ),
)
COUNTS: dict[SplitName, int] = {"train": 12_000, "test": 8_580}


def find(spec: Photographs, folder: Path) -> Listing:
    """The images in the order of the official lists; a class is named by its folder without the WordNet number.

    Raises BlaError for a file that is missing, an annotation that cannot be read, or a number of images other than
    `COUNTS`.
    """
    images, lists, annotation = (provide(source, folder) for source in SOURCES)
    names: dict[SplitName, list[str]] = {
        "train": _listed(lists / "train_list.mat"),
        "test": _listed(lists / "test_list.mat"),
    }
    breeds = sorted({name.split("/")[0] for listed in names.values() for name in listed})
    labels = {breed: label for label, breed in enumerate(breeds)}

    def image(name: str) -> ImageFile:
        boxes = object_boxes(annotation / "Annotation" / name.removesuffix(".jpg"))
        return ImageFile(f"{images.name}/Images/{name}", labels[name.split("/")[0]], boxes=boxes)

    splits = {split: [image(name) for name in listed] for split, listed in names.items()}
    return complete(Listing(folder, [breed.split("-", 1)[1] for breed in breeds], splits), COUNTS, lists)


def _listed(path: Path) -> list[str]:
    """The names `<folder>/<file>.jpg` in a list, which is a cell array of strings in a MATLAB 5 file."""
    return [str(name) for name in np.atleast_1d(loadmat(path, squeeze_me=True)["file_list"])]
