"""Names of test images: the file of each, for tables, captions and pictures."""

from collections.abc import Iterable
from pathlib import PurePosixPath
from textwrap import fill

import pandas as pd

from bla.datasets import class_of_each
from bla.plotting.sheet import can_draw
from pipeline.artifacts.images import CAPTION, IMAGES, captions, class_names, load_labels
from pipeline.artifacts.tables import load_table


def image_names(dataset: str) -> list[str]:
    """The test images by number: each one's file in the dataset's folder, or `test NUMBER` if it was drawn."""
    manifest = load_table(IMAGES / dataset / "manifest.csv", dtype=str, keep_default_na=False)
    return [str(name) for name in manifest.loc[manifest["split"] == "test", "source"]]


def drawable(text: str, otherwise: str) -> str:
    """A text as pictures show it: `otherwise` if their font lacks a letter; a $ begins no formula."""
    return (text if can_draw(text) else otherwise).replace("$", r"\$")


def image_captions(dataset: str, numbers: Iterable[int]) -> list[str]:
    """The true class and the file name of test images, as captions; `image NUMBER` if the pictures' font lacks letters."""
    names, classes = (
        image_names(dataset),
        [captions(dataset)[label] for label in class_of_each(load_labels(dataset, "test"))],
    )
    lines = []
    for number in numbers:
        name = PurePosixPath(names[number]).name
        short = fill(name if can_draw(name) else f"image {number}", CAPTION, max_lines=2, placeholder=" …")
        lines.append(f"{classes[number]}\n" + short.replace("$", r"\$"))
    return lines


def table_of_images(dataset: str, numbers: Iterable[int], targets: Iterable[int]) -> pd.DataFrame:
    """A row per explained image, in the order of the maps: number among the test images, file, true and explained class."""
    names, classes, labels = image_names(dataset), class_names(dataset), load_labels(dataset, "test")
    rows = []
    for row, (number, target) in enumerate(zip(numbers, targets, strict=True)):
        label = labels[number]
        true = [classes[k] for k in label.nonzero()[0]] if label.ndim else [classes[label]]
        rows.append({"row": row, "image": int(number), "file": names[number], "class": "|".join(true), "explained_class": classes[target]})  # fmt: skip
    return pd.DataFrame(rows)
