"""Maps of the predicted and of the true class, method by method, for images that the classifier gets wrong."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from bla.plotting.maps import sentence, side_by_side


def both_classes(
    images: NDArray[np.uint8],
    maps: Mapping[str, NDArray[np.float64]],
    captions: list[str],
    heading: str,
    grid: Sequence[int],
) -> Figure:
    """A row per image; for each method, by title, the maps `[2, M, h, w]` of the predicted and of the true class.

    `images` are uint8 `[M, H, W, 3]`. Without images or maps the heading is all there is.
    """
    if not len(images) or not maps:
        return sentence(heading)
    whose = ("predicted", "true")
    drawn = {f"{title}: {whose[i]}": of_method[i] for title, of_method in maps.items() for i in (0, 1)}
    return side_by_side(images, drawn, captions, heading, grid)
