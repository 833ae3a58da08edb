"""Methods with settings: by name, with changed settings, or a class of one's own.

with_settings("lime", patterns=500)
with_settings("bla_ph", temperature=0.2)
with_settings(MyExplainer, images=100)
"""

import inspect
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from bla.base.errors import BlaError
from bla.base.specs import L2XF, BoundedLogits, Explaining
from bla.explainers.interface import Explainer
from bla.explainers.learned.attention import Attention
from bla.explainers.registry import explainer_class, explainer_names

VARIANTS: dict[str, Explaining] = {
    "bla": BoundedLogits(explanation="bounded_logits", head="trained", temperature=0.1, threshold_factor=0),
    "bla_t": BoundedLogits(explanation="bounded_logits", head="trained", temperature=0.1, threshold_factor=0.98),
    "bla_ph": BoundedLogits(explanation="bounded_logits", head="frozen", temperature=0.1, threshold_factor=0.98),
    "l2x_f": L2XF(explanation="l2x_f", head="trained", temperature=0.1, k=8),
}
"""Explanation modules, with the settings of Table 1: `bla_ph` leaves the classifier as it is, the others train its head."""


@dataclass(frozen=True)
class Method:
    """A method by name, with its class and its settings."""

    name: str
    explainer: type[Explainer]
    settings: Any

    @property
    def is_variant(self) -> bool:
        """Whether it is an explanation module."""
        return issubclass(self.explainer, Attention)

    @property
    def title(self) -> str:
        """Its name in tables and pictures."""
        return self.name.upper().replace("_", "-") if self.is_variant else str(self.explainer.title)


def method_names() -> list[str]:
    """The names of all methods, explanation modules first."""
    return [*VARIANTS, *(name for name in explainer_names() if name != "attention")]


def with_settings(method: str | type[Explainer], **settings: Any) -> Method:
    """A method by its name or class, with some settings changed; BlaError for an unknown name or a wrong setting."""
    if inspect.isclass(method):
        return Method(method.__name__, method, checked(method.__name__, method.Settings, settings))
    if method in VARIANTS:
        preset = VARIANTS[method]
        return Method(method, Attention, checked(method, type(preset), asdict(preset) | settings))
    if method not in method_names():
        raise BlaError(f"there is no explanation method {method}; there are {', '.join(method_names())}")
    explainer = explainer_class(method)
    return Method(method, explainer, checked(method, explainer.Settings, settings))


def checked(name: str, model: Any, settings: dict[str, Any]) -> Any:
    """The settings as a `model`, a dataclass with bounds; BlaError, which names each setting that is outside."""
    if not is_dataclass(model):
        raise BlaError(f"{name}: its Settings must be a dataclass")
    try:
        return TypeAdapter(model).validate_python(settings)
    except ValidationError as error:
        lines = [f"{name}: {'.'.join(map(str, e['loc']))}: {e['msg']}, not {e['input']!r}" for e in error.errors()]
        raise BlaError("\n".join(lines)) from error
