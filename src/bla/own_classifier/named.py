"""A classifier from names and files, as the command line gives them: model, weights, labels, input size.

own = load_classifier("torchvision/resnet18", Path("my.pth"), Path("labels.txt"))
"""

import math
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import timm
import torch
from timm.data.config import resolve_data_config
from timm.data.transforms_factory import create_transform
from torch import Tensor, nn

from bla.base.errors import BlaError
from bla.method.scores import Scores
from bla.own_classifier.labels import read_labels
from bla.own_classifier.transform import Transform
from bla.own_classifier.weights import load_weights, read_weights
from bla.own_classifier.wrap import OwnClassifier, wrap

LARGEST = 4096
"""Pixels of a side of the classifier's input, at most; the bound of `bla.base.specs.Side`."""


def load_classifier(
    model: str,
    weights: Path | None = None,
    labels: Path | None = None,
    *,
    scores: str = "softmax",
    size: str | None = None,
    resize: str | None = None,
    mean: str | None = None,
    std: str | None = None,
) -> OwnClassifier:
    """The wrapped classifier of the command line's options, on a GPU if there is one; BlaError, which names a wrong option."""
    kind: Scores = "sigmoid" if scores == "sigmoid" else "softmax"
    if scores != kind:
        raise BlaError(f"--scores: must be {' or '.join(get_args(Scores))}, not {scores}")
    if size is None and (resize or mean or std):
        raise BlaError("--resize, --mean and --std belong to --size; without it the model's usual transform is used")
    if weights is None and not model.endswith(".py"):
        raise BlaError("--weights: name the file of the trained weights; without them the classifier is random")
    names = read_labels(labels) if labels else None
    loaded = read_weights(weights) if weights else {}
    network, transform, functions = build_model(model, len(names) if names else None, loaded)
    if weights:
        load_weights(network, loaded, weights)
    if size is not None:
        settings: dict[str, Any] = {"size": _sides("--size", size)}
        settings |= {"resize": _sides("--resize", resize)} if resize else {}
        settings |= {name: _numbers(f"--{name}", text) for name, text in (("mean", mean), ("std", std)) if text}
        transform = Transform(**settings)
    if transform is None:
        raise BlaError(f"--size: {model} defines no transform; add one, or give --size, --resize, --mean and --std")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return wrap(network, transform, names, scores=kind, device=device, **functions)


def build_model(
    name: str, classes: int | None, weights: dict[str, Tensor]
) -> tuple[nn.Module, Callable[[Any], Any] | None, dict[str, Any]]:
    """A network in evaluation mode, its usual transform if it has one, and further arguments of `wrap`.

    `name` is `torchvision/NAME`, a timm model, or a Python file that defines `build()` and, if it likes, `transform`,
    `features` and `tail` (see `wrap`). Without `classes` the weights of the last layer say how many there are.
    """
    if name.endswith(".py"):
        return _from_file(Path(name))
    source, _, short = name.rpartition("/")
    count = classes or _classes(_named(source, short, name, 1000), weights)
    model = _named(source, short, name, count).eval()
    if source == "torchvision":
        from torchvision import models  # type: ignore[import-untyped]

        return model, models.get_model_weights(short).DEFAULT.transforms(), {}
    config = resolve_data_config({}, model=model)  # type: ignore[no-untyped-call]
    return model, create_transform(**config), {}


def _named(source: str, short: str, name: str, classes: int) -> nn.Module:
    try:
        if source == "torchvision":
            from torchvision import models

            if short not in models.list_models(module=models):
                raise ValueError(f"torchvision has no classifier {short}")
            options = {"init_weights": False} if short in ("googlenet", "inception_v3") else {}
            model: nn.Module = models.get_model(short, weights=None, num_classes=classes, **options)
        else:
            model = timm.create_model(name, pretrained=False, num_classes=classes)
    except Exception as error:  # timm asks the hub for some names, without a network too
        raise BlaError(
            f"--model {name}: {str(error).rstrip('.')}; name torchvision/NAME, a timm model, or a Python file with build()"
        ) from error
    return model


def _classes(model: nn.Module, weights: dict[str, Tensor]) -> int:
    """How many classes the last layer has in the file."""
    last = list(model.state_dict())[-1]
    matching = [value for name, value in weights.items() if name == last or name.endswith(f".{last}")]
    return len(matching[0]) if matching and matching[0].ndim else 1000


def _from_file(path: Path) -> tuple[nn.Module, Callable[[Any], Any] | None, dict[str, Any]]:
    if not path.is_file():
        raise BlaError(f"--model {path}: no such file")
    try:
        sys.path.insert(0, str(path.absolute().parent))  # as for a script: it may import the files beside it
        defined = runpy.run_path(str(path))
        if "build" not in defined:
            raise BlaError(f"--model {path}: it must define build(), which returns the model")
        model = defined["build"]()
    except BlaError:
        raise
    except (Exception, SystemExit) as error:  # the user's file may raise anything
        raise BlaError(f"--model {path}: it fails ({type(error).__name__}: {error})") from error
    if not isinstance(model, nn.Module):
        raise BlaError(f"--model {path}: build() returns {type(model).__name__}, not a torch module")
    functions: dict[str, Any] = {name: defined[name] for name in ("features", "tail") if name in defined}
    return model.eval(), defined.get("transform"), functions


def _sides(option: str, text: str) -> int | tuple[int, int]:
    parts = text.split("x")
    if not (1 <= len(parts) <= 2 and all(part.isdecimal() and 0 < len(part) < 10 and int(part) > 0 for part in parts)):
        raise BlaError(f"{option}: must be pixels such as 224 or 160x256, not {text}")
    if max(map(int, parts)) > LARGEST:
        raise BlaError(f"{option}: {text}: at most {LARGEST:,} pixels a side; larger images take many gigabytes")
    return int(parts[0]) if len(parts) == 1 else (int(parts[0]), int(parts[1]))


def _numbers(option: str, text: str) -> tuple[float, ...]:
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) == 3 and option == "--mean" and max(values) > 1:
        raise BlaError(f"{option}: {text} is for pixels of 0 to 255; divide --mean and --std by 255")
    if len(values) != 3 or not all(map(math.isfinite, values)) or (option == "--std" and min(values) <= 0):
        raise BlaError(f"{option}: must be three numbers such as 0.485,0.456,0.406, not {text}")
    return values
