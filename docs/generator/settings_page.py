"""The page of all settings: names, types, bounds, values and comments, read from the models and from params.yaml."""

import types
from collections.abc import Iterator
from dataclasses import MISSING, fields
from functools import cache
from html import escape
from inspect import cleandoc
from math import inf
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml
from annotated_types import Ge, Gt, Le, Lt, MinLen

from bla.explainers.registry import explainer_class, explainer_names
from pipeline.run.settings import Settings

TAGS = ("kind", "explanation")
"""The settings that select the model of an entry that may have several."""
NAMES = {int: "integer", float: "number", str: "text", bool: "true or false", type(None): "null", Any: "any value"}
INTRODUCTION = """# All settings

Read from the code that checks [`params.yaml`](params.yaml), when this site is built. `NAME` stands for the name of an
entry. The column *value* is what `params.yaml` has now. A setting without value and without default must be given in each entry.
An unknown, missing or impossible setting stops `make repro` before anything runs.
"""


def settings_page() -> str:
    """Markdown with a section for each model, and a table row for each setting."""
    sections = [
        f"## {heading(name, model)}\n\n{about(model)}\n\n{setting_table(name, model)}" for name, model in models()
    ]
    return "\n\n".join([INTRODUCTION, *sections]) + "\n"


def heading(name: str, model: Any) -> str:
    """The section's name in params.yaml, and the values of the tag that select the model."""
    options = " or ".join(f"`{option}`" for option in tag_of(model)[1])
    return " ".join(filter(None, [f"`{name}`" if name else "Top level", options]))


def tag_of(model: Any) -> tuple[str, tuple[str, ...]]:
    """The setting that selects this model, with its values; empty if the section has one model."""
    hints = get_type_hints(model)
    tag = next((tag for tag in TAGS if tag in hints), "")
    return tag, get_args(hints[tag]) if tag else ()


def about(model: Any) -> str:
    """The docstring of a model, without that which Python writes for a dataclass without one."""
    doc = cleandoc(model.__doc__ or "")
    return "" if doc.startswith(f"{model.__name__}(") else escaped(doc)


def escaped(text: str) -> str:
    """Markdown in which `<` and `&` outside code stand for themselves."""
    return "`".join(part if number % 2 else escape(part, quote=False) for number, part in enumerate(text.split("`")))


@cache
def params() -> tuple[Any, dict[str, str]]:
    """The values of params.yaml, and the comments on its keys."""
    text = Path("params.yaml").read_text()
    return yaml.safe_load(text), key_comments(text)


@cache
def models() -> list[tuple[str, Any]]:
    """Every section of params.yaml with its model, depth first; then the settings of every method."""
    found = list(nested("", Settings))
    methods = [(name, explainer_class(name).Settings) for name in explainer_names()]
    return found + [(f"explainer.{name}", model) for name, model in methods if setting_names(model)]


def nested(name: str, model: Any) -> Iterator[tuple[str, Any]]:
    """The model itself, and the models of its fields."""
    yield name, model
    hints = get_type_hints(model, include_extras=True)
    for field in setting_names(model):
        inside = f"{name}.{field}" if name else field
        for deeper, inner in models_of(inside, hints[field]):
            yield from nested(deeper, inner)


def models_of(name: str, kind: Any) -> Iterator[tuple[str, Any]]:
    """The models in a type; `dict` adds `NAME` to the section's name."""
    if get_origin(kind) is dict:
        name, kind = f"{name}.NAME", get_args(kind)[1]
    if isinstance(kind, type) and setting_names(kind):
        yield name, kind
    elif get_origin(kind) in (Annotated, Union, types.UnionType):
        for part in get_args(kind)[: 1 if get_origin(kind) is Annotated else None]:
            yield from models_of(name, part)


def setting_names(model: Any) -> list[str]:
    """The settings of a pydantic model or dataclass; none for other types."""
    if hasattr(model, "model_fields"):
        return list(model.model_fields)
    return [field.name for field in fields(model)] if hasattr(model, "__dataclass_fields__") else []


def setting_table(name: str, model: Any) -> str:
    """A row for each setting of a section: name, type with bounds, value, and the comment in params.yaml."""
    hints, (values, comments) = get_type_hints(model, include_extras=True), params()
    rows = ["| setting | type | value | meaning |", "|---|---|---|---|"]
    for field in setting_names(model):
        full = f"{name}.{field}" if name else field
        comment = escaped(comments.get(full) or comment_of_entry(full, tag_of(model), values, comments))
        cells = (
            f"`{field}`",
            type_text(hints[field]),
            value_and_default(value_of(full, values, MISSING), default_of(model, field)),
            comment,
        )
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows)


def value_and_default(value: Any, default: Any) -> str:
    """The value in params.yaml, and the default where it is another one or there is no value."""
    shown, usual = value_text(value), value_text(default)
    if not usual or usual == shown:
        return shown
    return f"{shown} (default {usual})" if shown else f"default {usual}"


def value_text(value: Any) -> str:
    """A value as YAML; empty for sections and for settings without a value."""
    if value is MISSING or isinstance(value, dict):
        return ""
    return f"`{yaml.safe_dump(value, default_flow_style=True, width=10_000).splitlines()[0]}`"


def fact_table(facts: dict[str, str]) -> str:
    """A table of names and values; the first is the heading."""
    (first, *rest) = [f"| {name} | {text.replace('|', chr(92) + '|')} |" for name, text in facts.items()]
    return "\n".join([first, "|---|---|", *rest])


def default_of(model: Any, field: str) -> Any:
    """The default of a setting, MISSING if it must be given."""
    if hasattr(model, "model_fields"):
        info = model.model_fields[field]
        return MISSING if info.is_required() else info.default
    return next(f.default for f in fields(model) if f.name == field)


def value_of(full: str, values: Any, default: Any) -> Any:
    """The value in params.yaml, or the default."""
    for part in full.split("."):
        if not isinstance(values, dict) or part not in values:
            return default
        values = values[part]
    return values


def comment_of_entry(full: str, tag: tuple[str, tuple[str, ...]], values: Any, comments: dict[str, str]) -> str:
    """The comment on a setting of an entry: that of the first entry of this tag that has one."""
    parts = full.split(".")
    for other, comment in comments.items():
        names = other.split(".")
        same_setting = len(names) == len(parts) and all(a in (b, "NAME") for a, b in zip(parts, names, strict=True))
        if same_setting and (not tag[0] or value_of(".".join([*names[:-1], tag[0]]), values, None) in tag[1]):
            return comment
    return ""


def key_comments(text: str) -> dict[str, str]:
    """The comment on the line of each key of a YAML file, by the key's full name; the first key of a line has it."""
    lines, found, used = text.splitlines(), {}, set()

    def visit(node: yaml.Node | None, name: str) -> None:
        if not isinstance(node, yaml.MappingNode):
            return
        for key, value in node.value:
            full, line = f"{name}{key.value}", key.start_mark.line
            _, mark, comment = lines[line].partition(" # ")
            if mark and line not in used:
                found[full] = comment.strip()
            used.add(line)
            visit(value, f"{full}.")

    visit(yaml.compose(text), "")
    return found


def type_text(kind: Any) -> str:
    """A type in words, with its bounds."""
    if kind in NAMES:
        return NAMES[kind]
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return ", ".join([type_text(parts[0]), *filter(None, map(bound_text, parts[1:]))])
    if origin is Literal:
        return " or ".join(f"`{part}`" for part in parts)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(type_text, parts)))
    if origin is dict:
        return "entries by name"
    if origin is tuple and parts[-1] is not Ellipsis:
        return f"[{'; '.join(map(type_text, parts))}]"
    return f"list ({type_text(parts[0])})" if origin in (list, tuple) else "section"


def bound_text(extra: Any) -> str:
    """An annotation as a bound in words; empty for annotations that are none."""
    if isinstance(extra, MinLen):
        return f"at least {extra.min_length}"
    for kind, sign, name in ((Ge, "≥", "ge"), (Gt, ">", "gt"), (Le, "≤", "le"), (Lt, "<", "lt")):
        if isinstance(extra, kind):
            bound = getattr(extra, name)
            return "finite" if bound == inf else f"{sign} {bound:,}".removesuffix(".0")
    return ""
