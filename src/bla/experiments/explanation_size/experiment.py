"""The classifier's confidence with hard explanations."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bla.base.specs import Explaining
from bla.method.equations import hard_explanation, hard_weights, logits_of
from bla.method.finite import refuse_not_finite
from bla.method.modules import EVALUATION_CHUNK, Head, Module
from bla.method.scores import Scores, probabilities

Array = NDArray[np.float64]


@torch.no_grad()
def confidences(features: Tensor, variant: Explaining, head: Head, module: Module, scores: Scores) -> Array:
    """The largest class probability `[R, N]` of each run with hard explanations, from features `[N, n, C]`.

    BlaError, which names the images, if a feature is not finite.
    """
    refuse_not_finite(features[None], "test images")
    parts = []
    for part in features.split(EVALUATION_CHUNK):
        x = part.float()
        weights = hard_weights(variant, hard_explanation(variant, logits_of(variant, module(x))))
        parts.append(probabilities(head(torch.einsum("rbn,bnc->rbc", weights, x)), scores).amax(dim=2))
    result: Array = torch.cat(parts, dim=1).double().cpu().numpy()
    return result
