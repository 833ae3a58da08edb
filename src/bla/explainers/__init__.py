"""One module per explanation method, each with one class (see `bla.explainer`).

A method's name is the name of its module, which is imported when it is asked for.
"""

import importlib
import inspect
import pkgutil
from typing import Any

from bla.errors import BlaError
from bla.explainer import Explainer


def explainer_names() -> list[str]:
    """The names of all methods."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def explainer_class(name: str) -> Any:
    """The class of a method by its name; BlaError if there is none."""
    if name not in explainer_names():
        raise BlaError(f"there is no explanation method {name}; there are {', '.join(explainer_names())}")
    module = importlib.import_module(f"bla.explainers.{name}")
    (found,) = [
        value
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, Explainer) and value.__module__ == module.__name__
    ]
    return found
