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
from pipeline.artifacts.arrays import ByName, load_arrays, refuse_nan

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


def _head_arrays(head: "Head") -> dict[str, NDArray[np.float32]]:
    return {"head.weight": head.weight.numpy(), "head.bias": head.bias.numpy()}
