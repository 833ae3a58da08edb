"""Import closures: the source files that a file depends on, found without running it.

    closure([Path("src/bla/method/training.py")])     # the file, and every file of ours that it reaches by imports

Imports inside functions count, those under `if TYPE_CHECKING` do not.
`importlib.import_module(f"bla.explainers.{family}.{name}")` may import any module of that form: with `by_name` all of
them are in the closure; without it none is, and the caller adds the files it uses. A package's `__init__.py` counts if
it has code, because it runs when anything in the package is imported.

Imports that cannot be followed are errors: `import_module` with a variable or a relative name, under another name, or
passed as an argument.
"""

import ast
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import TypeGuard

HERE = Path(__file__).resolve()
PACKAGES = {"bla": HERE.parents[1], "pipeline": (HERE.parents[3] / "pipeline").resolve()}
"""Our packages and their folders, without symbolic links."""

EXEMPT = {
    "bla/__init__.py": "names the public API",
    "bla/base/specs.py": "declares settings, whose values are tracked",
    "pipeline/__init__.py": "puts src/ on the path",
    "pipeline/run/settings.py": "the settings model: their values are tracked",
}
"""Files left out of all closures, with the reason. Their imports are not followed either."""


def closure(starts: Iterable[Path], by_name: bool = True, packages: dict[str, Path] | None = None) -> list[Path]:
    """The files `starts` and all files of `packages` (ours) that they import, directly or not; sorted, without `EXEMPT`.

    Raises ValueError for an `import_module` whose argument cannot be followed.
    """
    packages = {name: folder.resolve() for name, folder in (packages or PACKAGES).items()}
    reached: set[Path] = set()
    waiting = [path.resolve() for path in starts]
    while waiting:
        path = waiting.pop()
        if path in reached or name_of(path, packages) in EXEMPT:
            continue
        reached.add(path)
        waiting += _imported(path, by_name, packages)
    return sorted(path for path in reached if path.name != "__init__.py" or _has_code(path.read_text()))


def name_of(path: Path, packages: dict[str, Path] | None = None) -> str:
    """A file's place in its package, such as `bla/runtime/imports.py`: the same in every checkout."""
    for package, folder in (packages or PACKAGES).items():
        if path.is_relative_to(folder):
            return f"{package}/{path.relative_to(folder).as_posix()}"
    return path.name


def _imported(path: Path, by_name: bool, packages: dict[str, Path]) -> Iterator[Path]:
    modules = (name.split(".") for name in _statements_of(path, packages)[0])
    modules = (parts for parts in modules if parts[0] in packages)
    # importing a.b.c runs a, a.b and a.b.c
    places = dict.fromkeys(tuple(parts[: depth + 1]) for parts in modules for depth in range(len(parts)))
    for place in places:
        if file := _file(place, packages):
            yield file
    if by_name:
        yield from _named(path, packages)


def _named(path: Path, packages: dict[str, Path]) -> Iterator[Path]:
    for pattern in _statements_of(path, packages)[1]:
        for package, folder in packages.items():
            for file in folder.rglob("*.py"):
                parts = [package, *file.relative_to(folder).with_suffix("").parts]
                if re.fullmatch(pattern, ".".join(part for part in parts if part != "__init__")):
                    yield file


def _statements_of(path: Path, packages: dict[str, Path]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    module_name = name_of(path, packages).removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    try:
        return _statements(path.read_text(), module_name, path.name == "__init__.py")
    except (SyntaxError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error


def _file(parts: tuple[str, ...], packages: dict[str, Path]) -> Path | None:
    """The file of one of our modules; None for names that are not modules."""
    base = packages[parts[0]].joinpath(*parts[1:])
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)


@cache
def _statements(text: str, module_name: str, is_package: bool) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The modules that a module imports, and regular expressions of the modules that it imports by name."""
    names: list[str] = []
    patterns: list[str] = []
    waiting: list[ast.AST] = [ast.parse(text)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            waiting += node.orelse
            continue
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = module_name.split(".") if is_package else module_name.split(".")[:-1]
            parents = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            names += [base, *(f"{base}.{alias.name}" for alias in node.names)]
            if any(alias.name in BY_NAME and alias.asname for alias in node.names):
                raise ValueError(
                    f"line {node.lineno}: {ast.unparse(node)} cannot be followed; keep the name import_module"
                )
        elif isinstance(node, ast.Call) and _is_by_name(node.func):
            constant, pattern = _reached(node)
            names += constant
            patterns += pattern
            waiting += [*node.args, *node.keywords]  # not node.func, which is checked here
            continue
        elif _is_by_name(node):
            raise ValueError(f"line {node.lineno}: import_module is passed on; call it with a string or an f-string")
        waiting += ast.iter_child_nodes(node)
    return tuple(names), tuple(patterns)


BY_NAME = ("import_module", "__import__")


def _is_by_name(node: ast.AST) -> TypeGuard[ast.expr]:
    return (isinstance(node, ast.Name) and node.id in BY_NAME) or (
        isinstance(node, ast.Attribute) and node.attr in BY_NAME
    )


def _reached(call: ast.Call) -> tuple[list[str], list[str]]:
    """The module that a call of `import_module` names, or a regular expression of the modules that it can reach."""
    argument = call.args[0] if len(call.args) == 1 and not call.keywords else None
    if isinstance(argument, ast.Constant) and isinstance(argument.value, str) and argument.value[:1] != ".":
        return [argument.value], []
    if isinstance(argument, ast.JoinedStr) and isinstance(argument.values[0], ast.Constant):
        parts = [re.escape(str(p.value)) if isinstance(p, ast.Constant) else ".+" for p in argument.values]
        return [], ["".join(parts)]
    raise ValueError(
        f"line {call.lineno}: {ast.unparse(call)} cannot be followed; give it a string or an f-string that begins with a package"
    )


@cache
def _has_code(text: str) -> bool:
    """Whether a module has more than a docstring and comments."""
    body = ast.parse(text).body
    return any(not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)) for node in body)
