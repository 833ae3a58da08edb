"""Checks of files that users give."""

from pathlib import Path


def refuse_pipe(path: Path) -> None:
    """Raise ValueError for a pipe, socket or device, of which reading might never end."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise ValueError("a pipe, socket or device")
