"""Reading of params.yaml: values are not checked here (`pipeline.run.settings`), but a file that cannot be read is refused."""

from pathlib import Path
from typing import Any

import yaml
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError

from bla.base.errors import BlaError

LARGEST_FILE = 100_000
"""Largest size of params.yaml in bytes, which PyYAML reads in a second."""
LONGEST_NUMBER = 100
"""Characters of a number, which Python could take minutes to read."""

MOST_VALUES = 100_000
"""Values of the file with its aliases written out, which a few lines can make millions."""


class Loader(yaml.SafeLoader):
    """YAML that refuses what PyYAML lets pass or reports without its line: repeated keys, and values that do not fit their tag."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise ComposerError(None, None, f"{key.value} is set twice", key.start_mark)
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else None)
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        kind = node.tag.rpartition(":")[2]
        try:
            if kind in ("int", "float") and len(node.value) > LONGEST_NUMBER:
                raise ValueError
            value = super().construct_object(node, deep)
        except (ValueError, ArithmeticError, LookupError, AttributeError) as error:
            raise ConstructorError(None, None, f"{node.value[:50]!r} is no {kind}", node.start_mark) from error
        if kind in ("int", "float") and ":" in node.value:
            reason = (
                f"{node.value!r} is a number in base 60 (YAML reads {value}); write {value} or {node.value!r} in quotes"
            )
            raise ConstructorError(None, None, reason, node.start_mark)
        return value


def read_params(path: Path) -> Any:
    """What the file holds; BlaError if it is missing, too large, no file, or not valid YAML."""
    try:
        if path.exists() and not path.is_file():
            raise BlaError(f"{path}: not a file; replace it by one that holds the settings")
        if (size := path.stat().st_size) > LARGEST_FILE:
            raise BlaError(f"{path}: {size:,} bytes are more than {LARGEST_FILE:,}; it must hold settings alone")
        values = yaml.load(path.read_text(), Loader)  # noqa: S506  a SafeLoader
        if (count := _count(values, {})) > MOST_VALUES:
            raise BlaError(f"{path}: {count:,} values with all aliases are more than {MOST_VALUES:,}; write them without aliases")  # fmt: skip
        return values
    except RecursionError as error:
        raise BlaError(f"{path}: not valid YAML: brackets or lists are nested too deeply") from error
    except FileNotFoundError as error:
        raise BlaError(f"{path}: no such file; run this in the root of the repository") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BlaError(f"{path}: not valid YAML: {error}") from error


def _count(value: Any, known: dict[int, int]) -> int:
    """The number of values in nested lists and dictionaries, counting what an alias repeats each time."""
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in known:
        parts = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_count(part, known) for part in parts)
    return known[id(value)]
