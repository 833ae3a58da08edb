"""The paper's equations: from a score per cell to the weights that pool the feature map.

A frozen extractor gives a map f of n cells. A 1x1 convolution gives every cell a score g_i = u.f_i + b.
*Bounded logit attention* bounds the score from above, l_i = min(g_i, 0), so that many cells can share the
maximum, and pools with q = softmax(theta * l). At test time only the cells at the maximum remain.

    scores = torch.tensor([[0.3, 2.0, -1.0]])
    logits = bounded_logits(scores)              # [[0, 0, -1]]
    soft = soft_weights(logits, temperature=0.1) # [[0.344, 0.344, 0.311]]
    hard = cells_at_maximum(logits)              # [[True, True, False]]

All functions are pure and work on `[..., n]`, with cells last; leading dimensions (runs, images) are arbitrary.

Source: Baumhauer et al. 2021, sections 3.1 and 3.3; the authors' released code where the text is silent.
"""

import torch
from torch import Tensor

from bla.base.specs import L2XF, BoundedLogits, Explaining, Pointwise, ThresholdRule


def bounded_logits(scores: Tensor) -> Tensor:
    """Bound the scores from above: l = min(g, 0) (Baumhauer et al. 2021, section 3.1, the beta activation)."""
    return scores.clamp(max=0)


def soft_weights(logits: Tensor, temperature: float | Tensor) -> Tensor:
    """Softmax over the cells, q = softmax(theta * l); sums to 1 (Baumhauer et al. 2021, section 3.1)."""
    return torch.softmax(temperature * logits, dim=-1)


def threshold(weights: Tensor, factor: float | Tensor, rule: ThresholdRule) -> Tensor:
    """Cut the soft weights below gamma = factor / n; with factor 0 they are returned unchanged.

    - `subtract`: relu(q - gamma), as in the authors' code; the weights then sum to less than 1, and to 0 if every cell
      is at the bound and factor is 1.
    - `renormalise`: the same, divided by its sum (if that is 0, the weights stay 0).
    - `indicator`: 1[q > gamma], as printed in the paper (eq. 2); it has no gradient through q.
    """
    if isinstance(factor, Tensor):
        return torch.where(factor == 0, weights, _cut(weights, factor, rule))
    return _cut(weights, factor, rule) if factor else weights


def _cut(weights: Tensor, factor: float | Tensor, rule: ThresholdRule) -> Tensor:
    gamma = factor / weights.shape[-1]
    if rule == "indicator":
        return (weights > gamma).to(weights.dtype)
    cut = torch.relu(weights - gamma)
    if rule == "renormalise":
        total = cut.sum(dim=-1, keepdim=True)
        return cut / torch.where(total > 0, total, torch.ones_like(total))
    return cut


def cells_at_maximum(logits: Tensor) -> Tensor:
    """The hard explanation of bounded logits, as booleans: the cells whose logit equals the image's maximum.

    If a cell reaches the bound, these are the cells with l = 0 (section 3.1). Otherwise they are the cells with the
    largest logit, so that an explanation is never empty (the authors' code).
    """
    return logits == logits.amax(dim=-1, keepdim=True)


def largest_cells(logits: Tensor, k: int) -> Tensor:
    """The hard explanation of L2X-F, as booleans: the k cells with the largest logits (section 3.3)."""
    return torch.zeros_like(logits, dtype=torch.bool).scatter_(-1, logits.topk(k, dim=-1).indices, True)


def pointwise_weights(logits: Tensor, temperature: float) -> Tensor:
    """Pointwise attention, sigmoid(theta * l) of each cell separately: at most 0.5 (authors' code; section 3.3)."""
    return torch.sigmoid(temperature * logits)


def l2x_weights(logits: Tensor, temperature: float, gumbel_noise: Tensor) -> Tensor:
    """The relaxed sample of k cells that trains L2X-F: the largest of k noisy softmaxes, cell by cell.

    `gumbel_noise` is `[k, ..., n]`, one draw of standard Gumbel noise for each of the k cells to choose. As in the
    authors' code the temperature *multiplies* (0.1 makes the samples nearly flat), and the result is not renormalised.
    """
    return torch.softmax(temperature * (logits + gumbel_noise), dim=-1).amax(dim=0)


def gumbel(uniform: Tensor) -> Tensor:
    """Standard Gumbel noise from uniform numbers in [0, 1), which are clamped away from 0 and 1."""
    tiny = torch.finfo(uniform.dtype).tiny
    return -torch.log(-torch.log(uniform.clamp(min=tiny, max=1 - 2**-24)))


def logits_of(variant: Explaining, scores: Tensor) -> Tensor:
    """The logits `[..., n]` of a variant: the scores themselves for L2X-F, bounded for all others."""
    return scores if isinstance(variant, L2XF) else bounded_logits(scores)


def noise_shape(variant: Explaining, cells: int) -> tuple[int, ...] | None:
    """Shape of the uniform numbers that the soft explanation of one image needs; None if it is not random."""
    return (variant.k, cells) if isinstance(variant, L2XF) else None


def soft_explanation(variant: Explaining, logits: Tensor, uniform: Tensor | None) -> Tensor:
    """The pooling weights `[..., n]` in training; `uniform` is `[..., k, n]` for L2X-F, else None."""
    if isinstance(variant, L2XF):
        assert uniform is not None, "L2X-F samples its soft explanations"
        return l2x_weights(logits, variant.temperature, gumbel(uniform).movedim(-2, 0))
    if isinstance(variant, Pointwise):
        return pointwise_weights(logits, variant.temperature)
    weights = soft_weights(logits, variant.temperature)
    if isinstance(variant, BoundedLogits):
        return threshold(weights, variant.threshold_factor, variant.threshold_rule)
    return weights


def hard_explanation(variant: Explaining, logits: Tensor) -> Tensor:
    """The explanation at test time, as booleans `[..., n]`.

    The cells at the maximum; for L2X-F the k largest; for pointwise attention the cells of weight 0.5, possibly none.
    """
    if isinstance(variant, L2XF):
        return largest_cells(logits, variant.k)
    if isinstance(variant, Pointwise):
        return pointwise_weights(logits, variant.temperature) >= 0.5
    return cells_at_maximum(logits)


def hard_weights(variant: Explaining, hard: Tensor) -> Tensor:
    """Equal pooling weights over the selected cells, delta / |delta|_1 (Baumhauer et al. 2021, section 3).

    Pointwise attention sums the cells without dividing (authors' code), so an empty explanation pools to zero.
    """
    return hard.float() if isinstance(variant, Pointwise) else hard / hard.sum(dim=-1, keepdim=True)
