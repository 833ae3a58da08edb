"""Caltech-UCSD Birds 200-2011: 11,788 photographs of 200 species, 5,994 for training, with masks and a box of every bird.

Wah et al. 2011, CNS-TR-2011-001, https://www.vision.caltech.edu/datasets/cub_200_2011. The images come from Flickr:
their copyright is with whoever took them, use is for non-commercial research and education.

    CUB_200_2011.tgz    CUB_200_2011/images/001.Black_footed_Albatross/Black_Footed_Albatross_0046_18.jpg
                        CUB_200_2011/{images,image_class_labels,train_test_split,bounding_boxes,classes}.txt
    segmentations.tgz   segmentations/001.Black_footed_Albatross/Black_Footed_Albatross_0046_18.png

A line of a list is an image's number and its value; a box is left, top, width, height. A mask's grey level is the share
of the annotators that marked the pixel, mostly five of them in steps of 51: from half of white on, most saw the bird
there. The archive holds 8 files that no list names. A few images are greyscale, and some also occur in ImageNet.
"""

from pathlib import Path

from bla.base.download import Source, provide
from bla.base.specs import Photographs
from bla.datasets import Box, ImageFile, Listing, SplitName
from bla.datasets.official import complete

SOURCES = (
    Source(
        "CUB_200_2011.tgz",
        ("https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz",),
        1_150_585_339,
        "sha256:0c685df5597a8b24909f6a7c9db6d11e008733779a671760afef78feb49bf081",
    ),
    Source(
        "segmentations.tgz",
        ("https://data.caltech.edu/records/w9d68-gec53/files/segmentations.tgz",),
        39_272_883,
        "sha256:dc77f6cffea0cbe2e41d4201115c8f29a6320ecb04fffd2444f51b8066e4b84f",
    ),
)
COUNTS: dict[SplitName, int] = {"train": 5_994, "test": 5_794}


def find(spec: Photographs, folder: Path) -> Listing:
    """The images in the order of images.txt; BlaError for a file that is missing or a number other than `COUNTS`."""
    birds, segmentations = (provide(source, folder) for source in SOURCES)
    lists = birds / "CUB_200_2011"
    labels, training = _values(lists / "image_class_labels.txt"), _values(lists / "train_test_split.txt")
    boxes = _values(lists / "bounding_boxes.txt")
    splits: dict[SplitName, list[ImageFile]] = {"train": [], "test": []}
    for number, (name,) in _values(lists / "images.txt").items():
        image = f"{birds.name}/CUB_200_2011/images/{name}"
        mask = f"{segmentations.name}/segmentations/{name.removesuffix('.jpg')}.png"
        left, top, width, height = (float(value) for value in boxes[number])
        box: Box = left, top, left + width, top + height
        splits["train" if training[number] == ["1"] else "test"].append(
            ImageFile(image, int(labels[number][0]) - 1, (mask,), (box,))
        )
    classes = [name.split(".", 1)[1] for (name,) in _values(lists / "classes.txt").values()]
    return complete(Listing(folder, classes, splits, "binary"), COUNTS, birds)


def _values(path: Path) -> dict[str, list[str]]:
    """The value of each number in a list file, in the order of its lines."""
    return {number: values for number, *values in map(str.split, path.read_text().splitlines())}
