"""Oxford-IIIT Pet: 7,349 photographs of 37 breeds, 12 of cats and 25 of dogs, each with the outline of the animal.

Parkhi et al. 2012, "Cats and dogs", https://www.robots.ox.ac.uk/~vgg/data/pets. CC BY-SA 4.0.

    images.tar.gz        images/Abyssinian_100.jpg
    annotations.tar.gz   annotations/{trainval,test}.txt: name, breed 1 to 37, species (1 cat, 2 dog), breed in its species
                         annotations/trimaps/Abyssinian_100.png: 1 pet, 2 background, 3 the border between them
                         annotations/xmls/Abyssinian_100.xml: box of the *head*, PASCAL VOC; for training images alone

The archives also hold unlisted images, MATLAB files, and files `._*` that macOS left behind. Some .jpg files are not
JPEG. A trimap or annotation can have more than one animal.
"""

from pathlib import Path

from bla.base.download import Source, provide
from bla.base.specs import OxfordPet
from bla.datasets import ImageFile, Listing, SplitName
from bla.datasets.official import complete, object_boxes

_SITES = "https://thor.robots.ox.ac.uk/~vgg/data/pets", "https://www.robots.ox.ac.uk/~vgg/data/pets/data"
SOURCES = (
    Source(
        "images.tar.gz",
        tuple(f"{site}/images.tar.gz" for site in _SITES),
        791_918_971,
        "sha256:67195c5e1c01f1ab5f9b6a5d22b8c27a580d896ece458917e61d459337fa318d",
    ),
    Source(
        "annotations.tar.gz",
        tuple(f"{site}/annotations.tar.gz" for site in _SITES),
        19_173_078,
        "sha256:52425fb6de5c424942b7626b428656fcbd798db970a937df61750c0f1d358e91",
    ),
)
COUNTS: dict[SplitName, int] = {"train": 3_680, "test": 3_669}
LISTS: dict[SplitName, str] = {"train": "trainval.txt", "test": "test.txt"}


def find(spec: OxfordPet, folder: Path) -> Listing:
    """The images in the order of the official lists, labelled by species or by breed.

    Raises BlaError for a file that is missing, an annotation that cannot be read, or a number of images other than
    `COUNTS`.
    """
    images, annotations = (provide(source, folder) for source in SOURCES)
    inside = annotations / "annotations"
    breeds: dict[int, str] = {}
    splits: dict[SplitName, list[ImageFile]] = {"train": [], "test": []}
    for split, lists in LISTS.items():
        for line in (inside / lists).read_text().splitlines():
            name, breed, species, _ = line.split()
            breeds[int(breed)] = name.rsplit("_", 1)[0]
            xml = inside / "xmls" / f"{name}.xml"
            splits[split].append(
                ImageFile(
                    f"{images.name}/images/{name}.jpg",
                    int(species if spec.classes == "species" else breed) - 1,
                    (f"{annotations.name}/annotations/trimaps/{name}.png",),
                    object_boxes(xml) if xml.is_file() else (),
                )
            )
    classes = ["cat", "dog"] if spec.classes == "species" else [breeds[number] for number in sorted(breeds)]
    return complete(Listing(folder, classes, splits, "trimap"), COUNTS, annotations)
