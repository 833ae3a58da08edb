"""Weights of a trained classifier from a file: safetensors, or a state dict of torch, which is read without running code."""

import shlex
from pathlib import Path
from pickle import UnpicklingError
from typing import Literal

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from bla.base.errors import BlaError

STATE_KEYS = ("state_dict", "model_state_dict", "model", "net")
"""Where training programs put the weights in their checkpoints."""
LARGEST_HEADER = 100_000_000
"""Bytes of a header that safetensors reads at most."""


def read_weights(path: Path | str) -> dict[str, Tensor]:
    """The tensors of a file of safetensors or, read without running code from it, of torch; its first bytes decide.

    Raises BlaError, with the line that converts the file, if it holds more than tensors.
    """
    path = Path(path)
    if not path.is_file():
        reason = "not a file, but a folder, pipe, socket or device" if path.exists() else "no such file of weights"
        raise BlaError(f"{path}: {reason}; name a .safetensors file, or a .pth file with a state dict")
    try:
        kind = _kind(path)
        if kind == "safetensors":
            return load_file(path)
        if not kind:
            raise BlaError(
                f"{path}: neither safetensors nor torch.save (pickle protocol 2 or later) wrote it; name a file that one of them wrote"
            )
        if path.suffix.lower() == ".safetensors":  # by which torch would choose the reader
            raise BlaError(f"{path}: was written by torch.save; rename it to {path.with_suffix('.pth').name}")
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except BlaError:
        raise
    except UnpicklingError as error:
        raise BlaError(
            f"{path}: holds more than weights, or has a rare pickle protocol, and reading it could run code. If you trust "
            f"it, convert it once, where its classes can be imported:\n  {_conversion(path)}"
        ) from error
    except Exception as error:  # torch raises any kind
        reason = ": ".join([type(error).__name__, *str(error).splitlines()[:1]])
        raise BlaError(f"{path}: not a readable file of weights ({reason}); save model.state_dict() again") from error
    for key in STATE_KEYS:
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise BlaError(f"{path}: holds no state dict; save model.state_dict(), or convert it:\n  {_conversion(path)}")
    return loaded


def load_weights(model: nn.Module, weights: dict[str, Tensor], path: Path | str) -> None:
    """Load weights into a model; prefixes that all their names share, such as `module.`, are removed. BlaError if they do not fit."""
    expected = model.state_dict()
    weights = {name: value for name, value in weights.items() if name != "n_averaged"}
    while weights and not expected.keys() & weights.keys():
        prefix = next(iter(weights)).partition(".")[0] + "."
        if not all(name.startswith(prefix) for name in weights):
            break
        weights = {name.removeprefix(prefix): value for name, value in weights.items()}
    counts = {name: value for name, value in expected.items() if name.endswith(".num_batches_tracked")}
    weights = counts | weights  # batch normalisation in evaluation never reads its count, and many files lack it
    wrong = [name for name in expected if name not in weights or weights[name].shape != expected[name].shape]
    wrong += [name for name in weights if name not in expected]
    if wrong:
        raise BlaError(
            f"{path}: does not fit the model: {len(wrong)} tensors are missing, unknown or of another "
            f"shape ({', '.join(wrong[:3])}{', ...' if wrong[3:] else ''}); is --model the right one, and are there as many labels as classes?"
        )
    model.load_state_dict(weights)


def _kind(path: Path) -> Literal["safetensors", "torch"] | None:
    """What wrote a file, by its first bytes; None if neither did.

    A file of safetensors begins with the length of its header in eight bytes, the first of which may be those of torch.
    """
    with path.open("rb") as file:
        start = file.read(9)
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= LARGEST_HEADER:
        return "safetensors"
    return "torch" if start.startswith((b"PK", b"\x80")) else None


def _conversion(path: Path) -> str:
    """A command for a shell, whatever characters the path has."""
    code = (
        "import torch; from safetensors.torch import save_file; "
        f"m = torch.load({str(path)!r}, map_location='cpu', weights_only=False); "
        "m = m.get('model', m.get('state_dict', m)) if isinstance(m, dict) else m; "
        "m = m.state_dict() if hasattr(m, 'state_dict') else m; "
        f"save_file({{k: v.clone().contiguous() for k, v in m.items()}}, {str(path.with_suffix('.safetensors'))!r})"
    )
    return f"python -c {shlex.quote(code)}"
