"""Which images have features that are not finite: they, and not the settings, are why a loss is not."""

import torch
from torch import Tensor

from bla.base.errors import BlaError
from bla.method.modules import EVALUATION_CHUNK

NAMED = 5
"""Images that a message names, at most."""


def refuse_not_finite(features: Tensor, what: str) -> None:
    """Raise BlaError if features `[D, N, n, C]` of N images, `what` they are, are not finite; it names the images."""
    parts = features.split(EVALUATION_CHUNK, dim=1)
    finite = torch.cat([part.isfinite().flatten(2).all(dim=2).all(dim=0) for part in parts])
    if numbers := finite.logical_not().nonzero()[:, 0].tolist():
        more = f" and {len(numbers) - NAMED:,} more" if len(numbers) > NAMED else ""
        raise BlaError(
            f"the features of {len(numbers):,} of {len(finite):,} {what} are NaN or infinite: numbers "
            f"{', '.join(map(str, numbers[:NAMED]))}{more}, counted from 0; their file is damaged: delete it and extract "
            "the features again"
        )
