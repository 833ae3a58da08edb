"""The import closure: exactly those of our files that a file imports, directly or indirectly."""

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from bla.runtime.imports import EXEMPT, PACKAGES, closure, name_of

ROOT = Path(__file__).parents[2]


@pytest.fixture
def house(tmp_path):
    """`house(files)` writes modules of a package `bla`, and returns the closure of bla/start.py."""

    def build(files, by_name=True):
        for name, text in files.items():
            path = tmp_path / "bla" / f"{name}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        packages = {"bla": tmp_path / "bla"}
        return {name_of(p, packages) for p in closure([tmp_path / "bla/start.py"], by_name, packages)}

    return build


@pytest.mark.parametrize(
    "statement",
    [
        "import bla.a.b",
        "import bla.a.b as c",
        "from bla.a import b",
        "from bla.a import b as c, other",
        "from bla.a.b import anything",
        "from bla.a.b import *",
        "from .a import b",
        "from .a.b import anything",
        "from . import a\nfrom .a import b",
        "def work():\n    from bla.a import b",
        "class A:\n    def work(self):\n        import bla.a.b",
        "if True:\n    import bla.a.b",
        "try:\n    import bla.a.b\nexcept ImportError:\n    pass",
        "with open('x'):\n    import bla.a.b",
        "import importlib\nimportlib.import_module('bla.a.b')",
        "from importlib import import_module\nimport_module('bla.a.b')",
        "import typing\nif typing.TYPE_CHECKING:\n    pass\nelse:\n    import bla.a.b",
        "from typing import TYPE_CHECKING\nif not TYPE_CHECKING:\n    import bla.a.b",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING or True:\n    import bla.a.b",
        "__import__('bla.a.b')",
    ],
)
def test_every_way_to_import_counts(statement, house):
    assert house({"start": statement, "a/b": "x = 1"}) == {"bla/start.py", "bla/a/b.py"}


@pytest.mark.parametrize(
    "statement",
    [
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import bla.a.b",
        "import typing\nif typing.TYPE_CHECKING:\n    from bla.a import b",
        "import numpy.a.b",
        "'import bla.a.b'",
        "# import bla.a.b",
        "import blabla.a.b",
    ],
)
def test_modules_that_are_not_imported_do_not_count(statement, house):
    assert house({"start": statement, "a/b": "x = 1"}) == {"bla/start.py"}


def test_the_init_of_a_package_counts_only_if_it_has_code(house):
    files = {"start": "import bla.a.b", "a/b": "", "a/__init__": '"""Only words."""\n# and a comment\n'}
    assert house(files) == {"bla/start.py", "bla/a/b.py"}
    assert house(files | {"a/__init__": "x = 1"}) == {"bla/start.py", "bla/a/b.py", "bla/a/__init__.py"}


def test_imports_in_the_init_of_a_package_are_followed(house):
    files = {"start": "import bla.a.b", "a/b": "", "a/__init__": "import bla.c", "c": "import bla.start"}
    assert house(files) == {f"bla/{name}.py" for name in ("start", "a/b", "a/__init__", "c")}


@pytest.mark.parametrize(
    ("call", "reached"),
    [
        ("f'bla.methods.{name}'", {"methods/a", "methods/b", "methods/deep/c"}),
        ("f'bla.methods.{family}.{name}'", {"methods/deep/c"}),
        ("f'bla.methods.a{name}'", set()),
        ("f'bla.meth{a}.b'", {"methods/b"}),
    ],
)
def test_modules_imported_by_name_count_if_requested(call, reached, house):
    files = {
        "start": f"import importlib\nimportlib.import_module({call})",
        "methods/a": "import bla.below",
        "methods/b": "",
    }
    files |= {"methods/deep/c": "", "below": ""}
    expected = {"bla/start.py", *(f"bla/{name}.py" for name in reached)} | (
        {"bla/below.py"} if "methods/a" in reached else set()
    )
    assert house(files) == expected
    assert house(files, by_name=False) == {"bla/start.py"}


@pytest.mark.parametrize(
    "statement", ["from . import b", "from .b import anything", "from ..a import b", "from . import *\nimport bla.a.b"]
)
def test_relative_imports_of_a_package_count(statement, house):
    files = {"start": "import bla.a", "a/__init__": statement, "a/b": "x = 1"}
    assert house(files) == {"bla/start.py", "bla/a/__init__.py", "bla/a/b.py"}


def test_a_module_named_by_a_string_counts_for_keys_too(house):
    files = {"start": "import importlib\nimportlib.import_module('bla.a.b')", "a/b": "x = 1"}
    assert house(files, by_name=False) == {"bla/start.py", "bla/a/b.py"}


def test_a_package_imported_by_name_counts(house):
    files = {"start": "import importlib\nimportlib.import_module(f'bla.methods.{name}')", "methods/a/__init__": "x = 1"}
    assert house(files) == {"bla/start.py", "bla/methods/a/__init__.py"}


@pytest.mark.parametrize(
    "statement",
    [
        "from importlib import import_module as load",
        "from importlib import import_module\nload = import_module",
        "from importlib import import_module\nlist(map(import_module, ['bla.a.b']))",
        "load = __import__",
        "import importlib\nload = importlib.import_module",
        "import importlib\nimportlib.import_module('.b', 'bla.a')",
        "import importlib\nimportlib.import_module(name='bla.a.b')",
    ],
)
def test_an_import_by_name_that_cannot_be_traced_is_an_error(statement, house):
    with pytest.raises(ValueError, match=r"start\.py: line \d: "):
        house({"start": statement, "a/b": "x = 1"})


@pytest.mark.parametrize("call", ["name", "f'{package}.x'", "'.b'.join(parts)", ""])
def test_a_call_that_cannot_be_followed_is_an_error_that_names_file_and_line(call, house):
    with pytest.raises(ValueError, match=r"start\.py: line 2: .*import_module"):
        house({"start": f"import importlib\nimportlib.import_module({call})"})


def test_a_file_that_does_not_parse_is_an_error_that_names_it(house):
    with pytest.raises(ValueError, match=r"start\.py"):
        house({"start": "def"})


def test_an_exempt_file_is_neither_in_a_closure_nor_followed(house):
    assert "bla/base/specs.py" in EXEMPT
    files = {"start": "import bla.base.specs", "base/specs": "import bla.deep", "deep": ""}
    assert house(files) == {"bla/start.py"}


def test_circular_imports_end(house):
    assert house({"start": "import bla.a", "a": "import bla.start"}) == {"bla/start.py", "bla/a.py"}


@pytest.mark.parametrize(
    "path", sorted(path for folder in PACKAGES.values() for path in folder.rglob("*.py")), ids=name_of
)
def test_every_file_of_ours_can_be_followed(path):
    assert path.resolve() in closure([path]) or name_of(path.resolve()) in EXEMPT or not path.read_text()


def test_no_file_of_ours_loads_another_in_an_untracked_way():
    """The closure cannot see changes of sys.path, runpy, exec and spec_from_file_location, so no stage uses them.

    The command `bla` runs a file of the user, by `named.py`, which no stage imports.
    """
    users = PACKAGES["bla"].resolve() / "own_classifier/named.py"
    assert users.exists()
    assert not any(users in closure([path]) for path in PACKAGES["pipeline"].glob("stages/*.py"))
    for folder in PACKAGES.values():
        for path in {path.resolve() for path in folder.rglob("*.py")} - {users}:
            calls = {
                ast.unparse(n.func).removeprefix("importlib.util.").removeprefix("runpy.")
                for n in ast.walk(ast.parse(path.read_text()))
                if isinstance(n, ast.Call)
            }
            assert not calls & {"exec", "eval", "run_module", "run_path", "spec_from_file_location", "load_module"}, (
                path
            )


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["train_variant", "maps", "claims", "reports"])
def test_modules_that_python_imports_are_in_the_closure(stage):
    """Modules imported at import time; imports inside functions come on top."""
    code = f"import sys, pipeline.stages.{stage}\nfor m in list(sys.modules.values()):\n    print(getattr(m, '__file__', None))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    files = {Path(line).resolve() for line in done.stdout.splitlines() if line.endswith(".py")}
    ours = {f for f in files if any(f.is_relative_to(folder.resolve()) for folder in PACKAGES.values())}
    seen = {f for f in ours if name_of(f) not in EXEMPT and f.name != "__init__.py"}
    # Exempt files import these two, which read settings and report errors: the values are tracked.
    through_exempt = {
        PACKAGES["bla"].resolve() / "base/errors.py",
        PACKAGES["pipeline"].resolve() / "run/params_file.py",
        PACKAGES["pipeline"].resolve() / "run/dataset_entry.py",
    }
    assert seen - through_exempt <= set(closure([ROOT / f"pipeline/stages/{stage}.py"]))


def test_the_registry_can_import_every_method_by_name():
    registry = PACKAGES["bla"] / "explainers/registry.py"
    methods = {path for path in PACKAGES["bla"].resolve().glob("explainers/*/*.py") if path.name != "__init__.py"}
    assert methods <= set(closure([registry]))
    assert not methods & set(closure([registry], by_name=False))


def test_modules_are_where_importlib_finds_them():
    for package, folder in PACKAGES.items():
        spec = importlib.util.find_spec(package)
        assert Path(spec.origin).resolve().parent == folder.resolve()
