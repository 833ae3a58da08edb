"""Two drawings for the introduction: they come from no dataset and no method, so that they favour none."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

SIDE, CELLS = 224, 7
EXAMPLE: Literal["ball"] = "ball"
ITEM: Literal["house"] = "house"


def example_picture(
    thing: Literal["ball", "house"], cells: Sequence[tuple[int, int]]
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """A drawing `[H, W, 3]` of a thing on grass under the sun, and a map `[h, w]` that is 1 at these cells (row, column)."""
    down, across = np.mgrid[:SIDE, :SIDE]
    image = np.empty((SIDE, SIDE, 3), np.uint8)
    image[:], image[down > 140] = (150, 195, 235), (90, 150, 70)
    image[(down - 36) ** 2 + (across - 188) ** 2 < 22**2] = (250, 215, 60)
    if thing == "ball":
        image[(down - 160) ** 2 + (across - 96) ** 2 < 30**2] = (190, 40, 40)
    else:
        image[(abs(across - 80) < 42) & (down > 95) & (down < 175)] = (205, 190, 170)
        image[(down <= 95) & (down > 50) & (abs(across - 80) < (down - 45))] = (120, 70, 60)
        image[(abs(across - 80) < 10) & (down > 135) & (down < 175)] = (80, 55, 45)
    values = np.zeros((CELLS, CELLS))
    for cell in cells:
        values[cell] = 1
    return image, values
