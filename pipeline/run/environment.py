"""Settings that are not in params.yaml: the device, and the folders of raw data and work files."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from bla.base.errors import BlaError

if TYPE_CHECKING:
    import torch

WORK = Path(".work")
"""Cached parts, checkpoints and provenance; ignored by git and DVC, safe to delete."""


def choose_device() -> "torch.device":
    """The device of the environment variable BLA_DEVICE: auto (the default), cpu, or cuda."""
    import torch

    setting = wanted_device()
    if setting == "cuda" and not torch.cuda.is_available():
        raise BlaError("BLA_DEVICE: cuda is set, but PyTorch finds no GPU; set it to auto or cpu")
    return torch.device("cuda" if setting != "cpu" and torch.cuda.is_available() else "cpu")


def wanted_device() -> str:
    """The value of BLA_DEVICE; BlaError unless it is auto, cpu or cuda."""
    setting = os.environ.get("BLA_DEVICE", "auto")
    if setting not in ("auto", "cpu", "cuda"):
        raise BlaError(f"BLA_DEVICE: must be auto, cpu or cuda, not {setting}")
    return setting


def temporary_copy_of() -> Path | None:
    """The checkout that `dvc exp run --temp` or `--queue` copied to this folder; None if this is no such copy."""
    experiments = [folder for folder in Path.cwd().parents if folder.as_posix().endswith("/.dvc/tmp/exps")]
    return experiments[0].parents[2] if experiments else None


def hint_for_temporary_copy(message: str) -> str:
    """What to add to an error message in an experiment with `--temp`, which runs in a copy of the files that git tracks."""
    of_file = " under " in message or "src/bla/networks/own/" in message
    if temporary_copy_of() and "there is no " in message and of_file:
        return "; --temp runs in a copy of the files that git tracks: `git add` a new file first"
    return ""


def after_interrupt() -> str:
    """What running again does. DVC deletes the temporary copy of an interrupted experiment, with its finished stages."""
    if temporary_copy_of():
        return "run again to start again, since --temp keeps nothing; without --temp it would continue"
    return "run again to continue"


def data_path(path: str) -> Path:
    """A path from params.yaml; a relative one starts at the environment variable BLA_DATA_ROOT (default data/raw).

    A temporary copy uses the raw data of its checkout, because git does not track them.
    """
    try:
        root = (temporary_copy_of() or Path()) / Path(os.environ.get("BLA_DATA_ROOT", "data/raw")).expanduser()
        return root / Path(path).expanduser()
    except RuntimeError as error:
        raise BlaError(
            f"~ in {path} or in BLA_DATA_ROOT names no user of this machine; write the whole path"
        ) from error
