"""COCO 2014: 123,287 photographs with objects of 80 classes, several an image.

Lin et al. 2014, https://cocodataset.org. Annotations CC BY 4.0; the images come from Flickr, under its terms.

    train2014.zip                   train2014/COCO_train2014_000000000009.jpg
    val2014.zip                     val2014/COCO_val2014_000000000042.jpg
    annotations_trainval2014.zip    annotations/instances_{train,val}2014.json: images, annotations, categories

Classes are numbered in the order of their ids, which have gaps (1 to 90). An image without annotations has no class:
pycocotools would give it all 80. The mask is the union of all objects, crowds included, drawn from their outlines once,
into `masks/`; a pixel that an outline touches belongs to the object, so that borders are up to a pixel wider than
pycocotools draws them.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from tqdm import tqdm

from bla.base.atomic import replacing
from bla.base.download import Source, provide
from bla.base.errors import BlaError
from bla.base.specs import Coco
from bla.datasets import Box, ImageFile, Listing, SplitName
from bla.datasets.official import complete

_SITE = "https://s3.amazonaws.com/images.cocodataset.org"
SOURCES = (
    Source(
        "train2014.zip",
        (f"{_SITE}/zips/train2014.zip",),
        13_510_573_713,
        "sha256:ede4087e640bddba550e090eae701092534b554b42b05ac33f0300b984b31775",
    ),
    Source(
        "val2014.zip",
        (f"{_SITE}/zips/val2014.zip",),
        6_645_013_297,
        "sha256:fe9be816052049c34717e077d9e34aa60814a55679f804cd043e3cbee3b9fde0",
    ),
    Source(
        "annotations_trainval2014.zip",
        (f"{_SITE}/annotations/annotations_trainval2014.zip",),
        252_872_794,
        "sha256:031296bbc80c45a1d1f76bf9a90ead27e94e99ec629208449507a4917a3bf009",
    ),
)
COUNTS: dict[SplitName, int] = {"train": 82_783, "test": 40_504}
PARTS: dict[SplitName, str] = {"train": "train2014", "test": "val2014"}


def find(spec: Coco, folder: Path) -> Listing:
    """The images in the order of their ids, each with all its classes, or none, and boxes and mask of its objects.

    Raises BlaError for a file that is missing, annotations that cannot be read, or a number of images other than
    `COUNTS`.
    """
    annotations = [provide(source, folder) for source in SOURCES][-1]
    splits: dict[SplitName, list[ImageFile]] = {"train": [], "test": []}
    for split, part in PARTS.items():
        path = annotations / f"annotations/instances_{part}.json"
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            classes = {each["id"]: each["name"] for each in sorted(data["categories"], key=lambda each: each["id"])}
            splits[split] = _files(data, part, list(classes), folder)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BlaError(f"{path}: not readable annotations ({error!r}); delete {annotations} and run again") from error  # fmt: skip
    return complete(Listing(folder, list(classes.values()), splits, "binary"), COUNTS, annotations)


def _files(data: dict[str, Any], part: str, ids: list[int], folder: Path) -> list[ImageFile]:
    """The images of a part, whose zip is unpacked to a folder of its name that holds another one."""
    labels: dict[int, set[int]] = {image["id"]: set() for image in data["images"]}
    boxes: dict[int, list[Box]] = {number: [] for number in labels}
    outlines: dict[int, list[Any]] = {number: [] for number in labels}
    for each in data["annotations"]:
        labels[each["image_id"]].add(ids.index(each["category_id"]))
        left, top, width, height = (float(value) for value in each["bbox"])
        boxes[each["image_id"]].append((left, top, left + width, top + height))
        outlines[each["image_id"]].append(each["segmentation"])
    return [
        ImageFile(
            f"{part}/{part}/{image['file_name']}",
            tuple(sorted(labels[image["id"]])),
            (_mask(folder, f"masks/{part}/{Path(image['file_name']).stem}.png", image, outlines[image["id"]]),),
            tuple(boxes[image["id"]]),
        )
        for image in tqdm(sorted(data["images"], key=lambda image: int(image["id"])), f"{part} masks", disable=None)
    ]


def _mask(folder: Path, name: str, image: dict[str, Any], outlines: Iterable[Any]) -> str | None:
    """Draw the mask of an image unless it is there; its name, or None if no pixel belongs to an object.

    An outline is a list of polygons [x, y, x, y, ...], or, for a crowd, the lengths of runs of pixels outside and
    inside, in turn, column by column.
    """
    if (folder / name).is_file():
        return name
    mask = Image.new("L", (image["width"], image["height"]))
    for outline in outlines:
        if isinstance(outline, dict):
            runs = np.repeat(np.arange(len(outline["counts"])) % 2, outline["counts"]).astype(np.uint8)
            mask.paste(255, mask=Image.fromarray(runs.reshape(mask.size).T * 255))
        else:
            for polygon in outline:
                ImageDraw.Draw(mask).polygon(polygon, fill=255, outline=255)
    if mask.getextrema() == (0, 0):
        return None
    with replacing(folder / name) as part:
        mask.save(part, format="PNG")
    return name
