"""Explanation methods by name: one file a method, in the folder of its family, with one class (see `interface`).

A method's name is the name of its file, which is imported when it is asked for.
"""

import importlib
import inspect
from pathlib import Path
from typing import Any

from bla.base.errors import BlaError
from bla.explainers.interface import Explainer


def explainer_files() -> dict[str, Path]:
    """The file of every method by name; BlaError if two families have a method of one name."""
    files: dict[str, Path] = {}
    for path in sorted(Path(__file__).parent.glob("*/[!_]*.py"), key=lambda path: path.stem):
        if path.stem in files:
            raise BlaError(f"{path}: there is {files[path.stem]} already; rename one of the two methods")
        files[path.stem] = path
    return files


def explainer_names() -> list[str]:
    """The names of all methods."""
    return list(explainer_files())


def explainer_class(name: str) -> Any:
    """The class of a method by its name; BlaError if there is none."""
    files = explainer_files()
    if name not in files:
        raise BlaError(f"there is no explanation method {name}; there are {', '.join(files)}")
    module = importlib.import_module(f"bla.explainers.{files[name].parent.name}.{name}")
    (found,) = [
        value
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, Explainer) and value.__module__ == module.__name__
    ]
    return found
