"""Weights of every run: backbones, BL's heads, the variants' modules and heads, as safetensors in models/."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from bla.base.atomic import replacing
from bla.base.errors import BlaError
from bla.base.specs import Explaining, NoExplanation
from pipeline.artifacts.arrays import load_arrays

if TYPE_CHECKING:
    from bla.method.modules import Head, Module, Trained
    from pipeline.run.settings import Settings

BACKBONES = Path("models/backbones")
HEADS = Path("models/heads")
VARIANTS = Path("models/variants")


def save_head(path: Path, head: "Head") -> None:
    """Write R heads: `head.weight` `[R, K, C]`, `head.bias` `[R, K]`."""
    with replacing(path) as part:
        save_file(_head_arrays(head), part)


def load_head(dataset: str, runs: int | None = None) -> "Head":
    """BL's heads of all runs; BlaError if they are not as many as `runs`."""
    import torch

    from bla.method.modules import Head

    path = HEADS / f"{dataset}.safetensors"
    arrays = load_arrays(path)
    if runs is not None and len(arrays["head.weight"]) != runs:
        raise BlaError(f"{path}: not {runs} heads; run dvc repro baseline@{dataset}")
    return Head(torch.from_numpy(arrays["head.weight"]), torch.from_numpy(arrays["head.bias"]))


def save_trained(dataset: str, variant: str, trained: "Trained") -> None:
    """Write R heads and, if there are any, R modules: `module.weight` `[R, C]`, `module.bias` `[R]`."""
    arrays = _head_arrays(trained.head)
    if trained.module is not None:
        arrays |= {"module.weight": trained.module.weight.numpy(), "module.bias": trained.module.bias.numpy()}
    with replacing(VARIANTS / dataset / f"{variant}.safetensors") as part:
        save_file(arrays, part)


def load_variant(dataset: str, variant: str, settings: "Settings") -> "tuple[Explaining, Head, Module]":
    """A variant's settings, and its heads and modules of all runs."""
    import torch

    from bla.method.modules import Head, Module

    spec = settings.variant[variant]
    assert not isinstance(spec, NoExplanation)
    arrays = {n: torch.from_numpy(v) for n, v in load_arrays(VARIANTS / dataset / f"{variant}.safetensors").items()}
    head = Head(arrays["head.weight"], arrays["head.bias"])
    return spec, head, Module(arrays["module.weight"], arrays["module.bias"])


def _head_arrays(head: "Head") -> dict[str, NDArray[np.float32]]:
    return {"head.weight": head.weight.numpy(), "head.bias": head.bias.numpy()}
