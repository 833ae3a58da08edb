"""The class names of a trained classifier, from a text file."""

from pathlib import Path

from bla.base.errors import BlaError
from bla.base.files import refuse_pipe


def read_labels(path: Path) -> list[str]:
    """The classes of a text file, one a line; BlaError if it has none, or one twice."""
    try:
        refuse_pipe(path)
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, ValueError) as error:
        raise BlaError(
            f"{path}: not a readable text file of labels ({error}); save it in UTF-8, a class a line"
        ) from error
    names = [line for line in lines if line]
    if not names:
        raise BlaError(f"{path}: no labels; write one class a line")
    if doubled := [name for name in names if names.count(name) > 1]:
        raise BlaError(f"{path}: {doubled[0]} is listed twice")
    return names
