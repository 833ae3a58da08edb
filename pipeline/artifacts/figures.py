"""What stages that draw share: which test images are pictured, and pictures saved side by side."""

from collections.abc import Callable, Mapping
from pathlib import Path
from textwrap import fill

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from bla.datasets import spread_over_classes
from bla.plotting.figures import save_figure
from bla.runtime.processes import in_processes
from pipeline.artifacts.files import load_array, replacing
from pipeline.artifacts.paths import IMAGES

CAPTION = 16
"""Characters that are as wide as a small picture."""


def class_names(dataset: str) -> list[str]:
    """The classes by label, as captions of a picture: two short lines at most."""
    names = pd.read_csv(IMAGES / dataset / "classes.csv", dtype=str, keep_default_na=False)["name"]
    lines = [fill(name.replace("_", " "), CAPTION, max_lines=2, placeholder=" …") for name in names]
    return [name.replace("$", r"\$") for name in lines]


def chosen_images(dataset: str, count: int) -> tuple[list[int], NDArray[np.uint8], list[str]]:
    """Some test images, spread evenly over the classes: numbers, pixels `[M, H, W, 3]`, class names."""
    images = load_array(IMAGES / dataset / "test_images.npy")
    labels = load_array(IMAGES / dataset / "test_labels.npy")
    names, numbers = class_names(dataset), spread_over_classes(labels, count).tolist()
    return numbers, images[numbers], [names[int(labels[n])] for n in numbers]


def save_pictures(pictures: Mapping[Path, Callable[[], Figure]]) -> None:
    """Draw and write PNG files, a process on each core; what draws one must be fit for `in_processes`."""
    for _ in in_processes(_save, list(pictures.items())):
        pass


def _save(picture: tuple[Path, Callable[[], Figure]]) -> None:
    path, draw = picture
    with replacing(path) as part:
        save_figure(draw(), part, "png")
