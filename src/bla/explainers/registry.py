"""Explanation methods by name: one file per method, in the folder of its family, with one class (see `interface`).

A method has the name of its file, which is imported on request. Nothing is registered by hand.
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
            raise BlaError(f"{path}: {files[path.stem]} has the same name; rename one of the two methods")
        files[path.stem] = path
    return files


def explainer_names() -> list[str]:
    """The names of all methods."""
    return list(explainer_files())


def explainer_class(name: str) -> Any:
    """The class of a method by its name; BlaError if there is none, or if its file has not exactly one."""
    files = explainer_files()
    if name not in files:
        raise BlaError(f"there is no explanation method {name}; there are {', '.join(files)}")
    module = importlib.import_module(f"bla.explainers.{files[name].parent.name}.{name}")
    classes = [
        value
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, Explainer) and value.__module__ == module.__name__
    ]
    classes = [value for value in classes if not inspect.isabstract(value)]
    if len(classes) != 1:
        raise BlaError(
            f"{files[name]}: has {len(classes)} methods; a file must define exactly one subclass of Explainer"
        )
    missing = [what for what in ("title", "card") if not hasattr(classes[0], what)]
    if missing:
        raise BlaError(
            f"{files[name]}: {classes[0].__name__} has no {' and no '.join(missing)}; see bla.explainers.interface"
        )
    return classes[0]
