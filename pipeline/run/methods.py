"""Settings of explanation methods: defined in the method's file, with values in params.yaml.

Only the stage `settings` checks the settings of all methods. Every other stage reads the settings of the methods that
it uses, so that it does not depend on the code of other methods.
"""

from dataclasses import fields
from typing import Any

from pydantic import TypeAdapter, ValidationError

from bla.base.errors import BlaError
from pipeline.run.settings import PARAMS, Settings, explain_error


def method_settings(settings: Settings, name: str, model: Any) -> Any:
    """A method's settings, of the dataclass `model`, from its section of params.yaml.

    Raises BlaError, which lists every wrong setting, one line each.
    """
    given = settings.explainer.get(name, {})
    try:
        return TypeAdapter(model).validate_python(given)
    except ValidationError as error:
        raw, known = {"explainer": {name: given}}, [field.name for field in fields(model)]
        lines = [explain_error({**e, "loc": ("explainer", name, *e["loc"])}, raw, known) for e in error.errors()]
        raise BlaError("\n".join(f"{PARAMS}: {line}" for line in lines)) from error
