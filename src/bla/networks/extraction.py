"""Extraction of a whole split to disk, batch by batch, so that the features need not fit in memory."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from bla.base.errors import BlaError
from bla.networks.backbones import Extractor, extract
from bla.runtime.cache import fill_store


def fill_features(
    store: Path,
    extractor: Extractor,
    images: NDArray[np.uint8],
    device: torch.device,
    draws: Sequence[int],
    title: str,
    with_draws: bool,
) -> None:
    """Write the half-precision features of images `[N, H, W, 3]` to `store/features.npy`; a killed stage resumes.

    The array is `[N, h, w, C]`, or `[D, N, h, w, C]` with `with_draws`: a draw of stochastic depth for each seed in
    `draws`, or one clean draw. Raises BlaError if a feature is not a finite half-precision number.
    """
    extractor = extractor.to(device)
    with torch.inference_mode():
        channels, *grid = extractor.feature_map(torch.from_numpy(images[[0]]).to(device)).shape[1:]
    count, number = len(images), max(1, len(draws))
    shape = (number, count, *grid, channels) if with_draws else (count, *grid, channels)

    def chunks(start: int) -> Iterator[tuple[list[NDArray[Any]], list[Any]]]:
        with tqdm(total=number * count, initial=start, desc=f"{title} features", unit="img", disable=None) as bar:
            for part in extract(extractor, images, device, draws, start):
                yield [part.reshape(len(part), *grid, channels)], []
                bar.update(len(part))

    try:
        fill_store(store, {"features": (shape, "float16")}, number * count, chunks)
    except BlaError as error:
        raise BlaError(f"{title}: {error}") from error
