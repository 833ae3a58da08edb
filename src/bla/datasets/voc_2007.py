"""PASCAL VOC 2007: 9,963 photographs with objects of 20 classes, several an image, and outlines for 632 of them.

Everingham et al. 2010, http://host.robots.ox.ac.uk/pascal/VOC/voc2007. The images come from Flickr; their use is bound
by its terms.

    VOCtrainval_06-Nov-2007.tar   VOCdevkit/VOC2007/JPEGImages/000005.jpg
    VOCtest_06-Nov-2007.tar                         ImageSets/Main/{trainval,test}.txt: names
                                                    Annotations/000005.xml: class and box of each object
                                                    SegmentationClass/000032.png: palette, 0 background, 255 void

An image has every class of which it shows an object, one that is marked as difficult included. The mask is the union of
all objects without the void border, for the images that have one.
"""

from pathlib import Path

from bla.base.download import Source, provide
from bla.base.errors import BlaError
from bla.base.specs import PascalVoc
from bla.datasets import ImageFile, Listing, SplitName
from bla.datasets.official import complete, object_boxes, object_names

_SITES = "https://thor.robots.ox.ac.uk/pascal/VOC/voc2007", "https://pjreddie.com/media/files"
SOURCES = (
    Source(
        "VOCtrainval_06-Nov-2007.tar",
        tuple(f"{site}/VOCtrainval_06-Nov-2007.tar" for site in _SITES),
        460_032_000,
        "sha256:7d8cd951101b0957ddfd7a530bdc8a94f06121cfc1e511bb5937e973020c7508",
    ),
    Source(
        "VOCtest_06-Nov-2007.tar",
        tuple(f"{site}/VOCtest_06-Nov-2007.tar" for site in _SITES),
        451_020_800,
        "sha256:6836888e2e01dca84577a849d339fa4f73e1e4f135d312430c4856b5609b4892",
    ),
)
COUNTS: dict[SplitName, int] = {"train": 5_011, "test": 4_952}
LISTS: dict[SplitName, str] = {"train": "trainval", "test": "test"}
CLASSES = [
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog"),
    *("horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
]


def find(spec: PascalVoc, folder: Path) -> Listing:
    """The images in the order of the official lists, each with all its classes.

    Raises BlaError for a file that is missing, an annotation that cannot be read or has another class, or a number of
    images other than `COUNTS`.
    """
    splits: dict[SplitName, list[ImageFile]] = {"train": [], "test": []}
    unpacked = [provide(source, folder) for source in SOURCES]
    for archive, (split, name) in zip(unpacked, LISTS.items(), strict=True):
        inside = archive / "VOCdevkit/VOC2007"
        for image in (inside / f"ImageSets/Main/{name}.txt").read_text().split():
            annotation, mask = inside / f"Annotations/{image}.xml", inside / f"SegmentationClass/{image}.png"
            names = object_names(annotation)
            if unknown := set(names) - set(CLASSES):
                raise BlaError(f"{annotation}: {unknown.pop()!r} is no class of VOC; delete {archive} and run again")
            labels = tuple(sorted({CLASSES.index(each) for each in names}))
            place = inside.relative_to(folder).as_posix()
            masks = (f"{place}/SegmentationClass/{image}.png" if mask.is_file() else None,)
            file = f"{place}/JPEGImages/{image}.jpg"
            splits[split].append(ImageFile(file, labels, masks, object_boxes(annotation)))
    listing = Listing(folder, CLASSES, splits, "voc")
    for archive, split in zip(unpacked, LISTS, strict=True):
        complete(listing, {split: COUNTS[split]}, archive)
    return listing
