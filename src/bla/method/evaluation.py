"""Evaluation of heads and explanation modules on cached features, all runs at once, with hard and with soft explanations."""

from collections.abc import Sequence

import torch
from torch import Tensor

from bla.base.errors import BlaError
from bla.base.specs import Explaining, NoExplanation, Variant
from bla.method.equations import (
    hard_explanation,
    hard_weights,
    logits_of,
    noise_shape,
    soft_explanation,
)
from bla.method.finite import refuse_not_finite
from bla.method.modules import EVALUATION_CHUNK, Evaluation, Explanations, Head, Module, Trained, pooled
from bla.method.scores import correct, losses
from bla.runtime.generators import draw, generators_of


@torch.no_grad()
def evaluate(
    features: Tensor,
    labels: Tensor,
    variant: Variant,
    trained: Trained,
    seeds: Sequence[int],
    device: torch.device | None = None,
) -> Evaluation:
    """Evaluate every run on the clean features of images `[N, n, C]`, without dropout, with hard and soft explanations.

    `seeds`, one per run, fix the samples of L2X-F's soft explanations, which are random in evaluation too (authors'
    code). Computed in chunks on `device` (default: that of the features). Raises BlaError if a loss is not finite.
    """
    device = device or features.device
    head = Head(trained.head.weight.to(device), trained.head.bias.to(device))
    parts = zip(features.split(EVALUATION_CHUNK), labels.split(EVALUATION_CHUNK), strict=True)
    if isinstance(variant, NoExplanation) or trained.module is None:
        scored = [
            [value.cpu() for value in _score(head, pooled(x.to(device))[None, :, 0], y.to(device))] for x, y in parts
        ]
        right, loss = (torch.cat(values, dim=1) for values in zip(*scored, strict=True))
        _require_finite(loss, features)
        return Evaluation(right, loss)
    module = trained.module.moved(lambda t: t.to(device))
    chunks = []
    generators, shape = generators_of(seeds, device), noise_shape(variant, features.shape[1])
    for x, y in parts:
        noise = draw(shape, len(x), generators) if shape else None
        chunks.append(
            [value.cpu() for value in _explain(x.to(device).float(), y.to(device), variant, head, module, noise)]
        )
    right, loss, *explained = (torch.cat(values, dim=1) for values in zip(*chunks, strict=True))
    _require_finite(loss, features)
    return Evaluation(right, loss, Explanations(*explained))


@torch.no_grad()
def scores_on_hard_explanation(features: Tensor, variant: Variant, head: Head, module: Module | None) -> Tensor:
    """Class scores `[R, B, K]` of a column for features `[B, n, C]`, pooled over its hard explanation, or over all cells."""
    if isinstance(variant, NoExplanation) or module is None:
        return head(pooled(features)[None, :, 0].expand(len(head.weight), -1, -1))
    weights = hard_weights(variant, hard_explanation(variant, logits_of(variant, module(features))))
    return head(torch.einsum("rbn,bnc->rbc", weights, features))


def _require_finite(loss: Tensor, features: Tensor) -> None:
    if not loss.isfinite().all():
        refuse_not_finite(features[None], "evaluated images")
        raise BlaError(
            "a loss is not finite in evaluation; check the weights of heads and modules, or train them again"
        )


def _explain(
    x: Tensor, y: Tensor, variant: Explaining, head: Head, module: Module, noise: Tensor | None
) -> tuple[Tensor, ...]:
    """For the images `[B, n, C]`: correct and loss with hard explanations, then the fields of `Explanations`."""
    logits = logits_of(variant, module(x))  # [R, B, n]
    hard, soft = hard_explanation(variant, logits), soft_explanation(variant, logits, noise)
    by_hard, by_soft = (
        _score(head, torch.einsum("rbn,bnc->rbc", w, x), y) for w in (hard_weights(variant, hard), soft)
    )
    return *by_hard, logits, soft, hard, *by_soft


def _score(head: Head, v: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Correctness and loss of the predictions, `[R, B]` each, for pooled features `[R, B, C]` (`bla.method.scores`)."""
    class_logits = head(v.expand(len(head.weight), -1, -1))
    return correct(class_logits, labels), losses(class_logits, labels)
