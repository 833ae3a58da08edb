"""Weights as safetensors in models/: backbones, BL's heads, variants and learned methods of all runs."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from bla.base.atomic import replacing
from bla.base.errors import BlaError
from bla.base.specs import Explaining, NoExplanation
from bla.own_classifier.labels import read_labels
from pipeline.artifacts.arrays import ByName, load_arrays, refuse_nan
from pipeline.artifacts.images import class_names
from pipeline.run.environment import data_path

if TYPE_CHECKING:
    from torch import Tensor

    from bla.method.modules import Head, Module, Trained
    from pipeline.run.settings import Settings

BACKBONES = Path("models/backbones")
HEADS = Path("models/heads")
LEARNED = Path("models/learned")


def save_head(path: Path, head: "Head") -> None:
    """Write R heads: `head.weight` `[R, K, C]`, `head.bias` `[R, K]`."""
    with replacing(path) as part:
        save_file(_head_arrays(head), part)


def load_head(dataset: str, runs: int | None = None) -> "Head":
    """BL's heads of all runs, or the one head of an own classifier; BlaError if there are not `runs`, nor one."""
    import torch

    from bla.method.modules import Head

    path = HEADS / f"{dataset}.safetensors"
    arrays = load_arrays(path)
    refuse_nan(path, arrays, f"dvc repro baseline@{dataset}")
    if runs is not None and len(arrays["head.weight"]) not in (1, runs):
        raise BlaError(f"{path}: not {runs} heads; run dvc repro baseline@{dataset}")
    return Head(torch.from_numpy(arrays["head.weight"]), torch.from_numpy(arrays["head.bias"]))


def starting_heads(dataset: str, runs: int) -> "Head":
    """The head from which each run of a variant starts: BL's of this run, or the one head of an own classifier."""
    from bla.method.modules import Head

    head = load_head(dataset, runs)
    copies = runs // len(head.weight)
    return Head(head.weight.repeat(copies, 1, 1), head.bias.repeat(copies, 1))


def checkpoint_head(dataset: str, labels: str | None) -> "Head":
    """The head of the checkpoint (R = 1), with its outputs in the order of the images' classes.

    `labels` is the entry's `classifier_labels`: a file with the class of each output, None if they are sorted. Raises
    BlaError if there are not as many outputs as classes, or if the labels are not the classes.
    """
    import torch

    from bla.method.modules import CHECKPOINT_HEAD, Head

    path, remedy = BACKBONES / f"{dataset}.safetensors", f"dvc repro backbone@{dataset}"
    arrays = load_arrays(path, remedy)
    weight, bias = (torch.from_numpy(arrays[f"{CHECKPOINT_HEAD}{name}"]) for name in ("weight", "bias"))
    order = _order_of_outputs(dataset, len(weight), labels)
    return Head(weight[order][None], bias[order][None])


def _order_of_outputs(dataset: str, outputs: int, labels: str | None) -> list[int]:
    """For each class of the images, the number of the output that scores it."""
    key, classes = f"params.yaml: dataset.{dataset}.classifier", class_names(dataset)
    if outputs != len(classes):
        raise BlaError(
            f"{key}: the head of the checkpoint has {outputs} outputs, but the images have {len(classes)} classes "
            f"({_some(classes)}); name a checkpoint of these classes, use images of all its classes, or set classifier to "
            "trained_here"
        )
    if labels is None:
        return list(range(outputs))
    named = read_labels(data_path(labels))
    if len(named) != outputs:
        raise BlaError(f"{key}_labels: {labels} has {len(named)} lines for {outputs} outputs; write one class a line")
    if unknown := sorted(set(classes) - set(named)):
        others = _some(sorted(set(named) - set(classes)))
        raise BlaError(f"{key}_labels: {labels} has no {_some(unknown)}, but {others}; use the names of the images' classes")  # fmt: skip
    return [named.index(name) for name in classes]


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if names[5:] else "")


def save_trained(dataset: str, variant: str, trained: "Trained") -> None:
    """Write R heads and, if there are any, R modules (`Trained.state`)."""
    save_state(dataset, variant, trained.state())


def save_state(dataset: str, name: str, state: "Mapping[str, Tensor]") -> None:
    """Write the state of a learned method, or of a variant, of all runs."""
    with replacing(LEARNED / dataset / f"{name}.safetensors") as part:
        save_file({key: np.ascontiguousarray(value.numpy()) for key, value in state.items()}, part)


def load_state(dataset: str, name: str) -> "dict[str, Tensor]":
    """Read the state that `save_state` wrote."""
    import torch

    path = LEARNED / dataset / f"{name}.safetensors"
    arrays = load_arrays(path)
    refuse_nan(path, arrays, "make repro")
    return ByName({key: torch.from_numpy(value) for key, value in arrays.items()}, path, arrays.remedy)


def load_variant(dataset: str, variant: str, settings: "Settings") -> "tuple[Explaining, Head, Module]":
    """A variant's settings, and its heads and modules of all runs."""
    from bla.method.modules import Trained

    spec, trained = settings.variant[variant], Trained.from_state(load_state(dataset, variant))
    assert not isinstance(spec, NoExplanation)
    assert trained.module is not None
    return spec, trained.head, trained.module


def trained_parameters(dataset: str, name: str, settings: "Settings") -> int:
    """The number of parameters that were trained for a variant or learned method, in each run."""
    spec = settings.variant.get(name)
    frozen = "head." if spec is not None and getattr(spec, "head", "") == "frozen" else "losses"
    kept = [
        values[0].numel() for key, values in load_state(dataset, name).items() if not key.startswith((frozen, "losses"))
    ]
    return sum(kept)


def _head_arrays(head: "Head") -> dict[str, NDArray[np.float32]]:
    return {"head.weight": head.weight.numpy(), "head.bias": head.bias.numpy()}
