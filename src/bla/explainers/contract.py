"""The battery that every explanation method passes."""

import torch
from torch import Tensor, nn

from bla.explainers.interface import Explainer


def check_explainer(explainer: Explainer, images: Tensor, targets: Tensor, tolerance: float = 1e-4) -> None:
    """Raise AssertionError unless the method keeps the promises of `Explainer` on at least three images.

    A title; shape and finite values; the same maps one by one, in another order and asked again; the targets matter if, and only
    if, the method is class-specific; inputs, model (mode, gradients, hooks) and random numbers are left as they were.
    """
    assert len(images) >= 3, "the battery needs at least three images"
    assert isinstance(getattr(explainer, "title", None), str), "there is no title for tables and pictures"
    model, seeds = explainer.classifier, torch.arange(len(images)) + 11
    before = _state(model), images.clone(), targets.clone(), torch.get_rng_state()
    maps = explainer.explain(images, targets, seeds)
    after = _state(model), images, targets, torch.get_rng_state()
    for what, old, new in zip(
        ("the model", "the images", "the targets", "the random state"), before, after, strict=True
    ):
        same = torch.equal(old, new) if isinstance(old, Tensor) and isinstance(new, Tensor) else old == new
        assert same, f"{what} is not as it was before"
    assert not maps.requires_grad, "the maps carry a graph"
    assert maps.ndim == 3, f"maps have shape {list(maps.shape)}, not [B, h, w]"
    assert len(maps) == len(images), f"{len(maps)} maps for {len(images)} images"
    assert maps.is_floating_point(), f"maps are {maps.dtype}"
    assert maps.isfinite().all(), "maps are not finite"

    def close(others: Tensor, mine: Tensor, how: str) -> None:
        scale = mine.abs().amax(dim=(1, 2)).clamp(min=1e-12)
        error = ((others - mine).abs().amax(dim=(1, 2)) / scale).max().item()
        assert error <= tolerance, f"maps differ by {error:.2g} of their size {how}"

    alone = [explainer.explain(images[i : i + 1], targets[i : i + 1], seeds[i : i + 1]) for i in range(len(images))]
    close(torch.cat(alone), maps, "when images come one by one")
    order = torch.arange(len(images)).flip(0)
    close(explainer.explain(images[order], targets[order], seeds[order])[order], maps, "in another order")
    close(explainer.explain(images, targets, seeds), maps, "when asked again")
    classes = model.head_weight.shape[1]
    other = explainer.explain(images, (targets + 1) % classes, seeds)
    if explainer.class_specific:
        assert not torch.allclose(other, maps), "maps of another class are the same"
    else:
        close(other, maps, "for another class")


def _state(model: nn.Module) -> list[object]:
    modules: list[object] = [
        (name, m.training, len(m._forward_hooks), len(m._backward_hooks), len(m._forward_pre_hooks))
        for name, m in model.named_modules()
    ]
    tensors = [
        (name, value.requires_grad, value.grad is None, value.detach().cpu().numpy().tobytes())
        for name, value in [*model.named_parameters(), *model.named_buffers()]
    ]
    return [*modules, *tensors]
