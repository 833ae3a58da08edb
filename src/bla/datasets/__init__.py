"""One module per dataset; each yields images, labels, class names, split and, where there are any, masks."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Split:
    """The images of one split, in a fixed order.

    `images` is uint8 `[N, H, W, 3]`, `labels` int64 `[N]`; `masks` is bool `[N, H, W]`, true on the object to be
    classified, or None where the dataset has no masks. `sources` says where each image comes from: a file relative
    to the dataset's folder, or the number of the handwritten digit.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    masks: NDArray[np.bool_] | None
    sources: list[str]
