"""The tests that every explanation method must pass."""

import math
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bla.explainers.interface import Card, Explainer, LearnedExplainer, StructuredExplainer, TrainingData


def check_explainer(explainer: Explainer, images: Tensor, targets: Tensor, tolerance: float = 1e-4) -> None:
    """Raise AssertionError unless the method does what `Explainer` promises, on at least three images.

    It has a title, a card, and a dataclass of settings. Maps have the right shape, are finite, and are the same one by
    one, in another order, and in a second call. Targets matter exactly if the method is class-specific, seeds only if
    it is seeded, images unless it ignores them. Sets of cells lie in the grid and do not depend on the batch. Inputs, model (mode, gradients, hooks)
    and the global random state are unchanged. A learned method must have been fitted (`check_learned`).
    """
    assert len(images) >= 3, "the battery needs at least three images"
    assert isinstance(getattr(explainer, "title", None), str), "there is no title for tables and pictures"
    card = getattr(explainer, "card", None)
    assert isinstance(card, Card), "there is no card"
    assert all(getattr(card, field.name).strip() for field in fields(card)), "the card has an empty field"
    assert is_dataclass(explainer.settings), "the settings are not a dataclass"
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
    with torch.no_grad():
        classes = model.run(0)(images[:1]).shape[2]
    other = explainer.explain(images, (targets + 1) % classes, seeds)
    if explainer.class_specific:
        assert not torch.allclose(other, maps), "maps of another class are the same"
    else:
        close(other, maps, "for another class")
    if not explainer.seeded:
        close(explainer.explain(images, targets, seeds + 1), maps, "with other seeds, although it is not seeded")
    if explainer.ignores_image:
        close(
            explainer.explain(images.roll(1, dims=0), targets, seeds),
            maps,
            "for other images, although it ignores the image",
        )
    if isinstance(explainer, StructuredExplainer):
        _check_sets(explainer, images, targets, seeds)


def check_learned(explainer: LearnedExplainer, data: TrainingData, seeds: Sequence[int]) -> None:
    """Raise AssertionError unless a learned method does what `LearnedExplainer` promises; afterwards it is fitted.

    Every tensor of the state has a leading run dimension. The same seeds give the same state, other seeds another one.
    The state survives saving and loading. The classifier and the global random state are unchanged.
    """
    runs, model = explainer.fitted_runs, explainer.classifier
    assert len(seeds) == runs, f"{len(seeds)} seeds for {runs} runs"
    before = _state(model), torch.get_rng_state()
    state = explainer.fit(data, seeds)
    after = _state(model), torch.get_rng_state()
    assert before[0] == after[0], "the model is not as it was before"
    assert torch.equal(before[1], after[1]), "the random state is not as it was before"
    assert state, "the state is empty"
    for name, value in state.items():
        assert value.shape[:1] == (runs,), (
            f"{name} has shape {list(value.shape)}, without a leading dimension of {runs} runs"
        )
        assert value.isfinite().all(), f"{name} is not finite"
        assert not value.requires_grad, f"{name} carries a graph"

    def same(other: dict[str, Tensor]) -> bool:
        return other.keys() == state.keys() and all(torch.equal(other[name], state[name]) for name in state)

    assert same(explainer.fit(data, seeds)), "the same seeds give another state"
    assert not same(explainer.fit(data, [seed + 1 for seed in seeds])), "other seeds give the same state"
    with TemporaryDirectory() as folder:
        path = Path(folder) / "state.safetensors"
        save_file({name: value.contiguous() for name, value in state.items()}, path)
        assert same(load_file(path)), "the state is another after it was in a file"
    explainer.load(state)


def _check_sets(explainer: StructuredExplainer, images: Tensor, targets: Tensor, seeds: Tensor) -> None:
    cells = math.prod(explainer.grid(images))
    _, sets = explainer.explain_with_sets(images, targets, seeds)
    assert len(sets) == len(images), f"sets of {len(sets)} images for {len(images)}"
    for of_image in sets:
        assert of_image, "an image has no set"
        for chosen in of_image:
            assert chosen == sorted(set(chosen)), f"the set {chosen} is not sorted, or has a cell twice"
            assert chosen, "a set is empty"
            assert set(chosen) <= set(range(cells)), f"the set {chosen} lies outside the {cells} cells of the grid"
    alone = [
        explainer.explain_with_sets(images[i : i + 1], targets[i : i + 1], seeds[i : i + 1])[1]
        for i in range(len(images))
    ]
    assert [part[0] for part in alone] == sets, "sets differ when images come one by one"


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
