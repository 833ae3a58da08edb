"""dvc.yaml against the code: a stage depends on what it imports, no more and no less."""

import ast
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
DECLARATIONS = {
    "pipeline/__init__.py", "pipeline/artifacts/paths.py", "pipeline/run/settings.py", "pipeline/run/stage.py", "pipeline/run/warm.py",
    "src/bla/__init__.py", "src/bla/base/errors.py", "src/bla/base/specs.py",
}  # fmt: skip
"""No dependencies: they declare names and settings (tracked by value) and start a stage, but decide no result."""


def source(module: str) -> Path | None:
    base = ROOT / ("src" if module.startswith("bla") else ".") / module.replace(".", "/")
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)


def statements(path: Path, inside_functions: bool) -> list[ast.Import | ast.ImportFrom]:
    """The imports of a module that run, those under TYPE_CHECKING left out."""
    found: list[ast.Import | ast.ImportFrom] = []
    waiting: list[ast.AST] = [ast.parse(path.read_text())]
    while waiting:
        for node in ast.iter_child_nodes(waiting.pop()):
            if isinstance(node, ast.Import | ast.ImportFrom):
                found.append(node)
            checking = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
            if not checking and (inside_functions or not isinstance(node, ast.FunctionDef)):
                waiting.append(node)
    return found


def imported(path: Path, inside_functions: bool = False) -> set[Path]:
    names = set()
    for node in statements(path, inside_functions):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    if path == ROOT / "src/bla/explainers/__init__.py":  # it imports what it is asked for
        names |= {f"bla.explainers.{file.stem}" for file in path.parent.glob("*.py")}
    return {file for name in names if name.split(".")[0] in ("bla", "pipeline") and (file := source(name))}


def code_behind(stage: str) -> set[str]:
    """The stage's module and all that it imports, what its own functions import included."""
    start = source(STAGES[stage]["cmd"].split()[2])
    assert start
    reached, waiting = {start}, list(imported(start, inside_functions=True))
    while waiting:
        path = waiting.pop()
        if path not in reached:
            reached.add(path)
            waiting += imported(path)
    return {str(path.relative_to(ROOT)) for path in reached} - DECLARATIONS


def code_named(stage: str) -> set[str]:
    named = set()
    for dependency in STAGES[stage].get("deps", []):
        if dependency.startswith(("src/", "pipeline/")):
            path = ROOT / dependency
            named |= {str(p.relative_to(ROOT)) for p in (path.rglob("*.py") if path.is_dir() else [path])}
    return named


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_the_code_it_imports(stage):
    assert code_named(stage) == code_behind(stage)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_says_what_it_does_and_keeps_its_outputs_until_new_ones_are_complete(stage):
    assert STAGES[stage]["desc"]
    for kind in ("outs", "metrics", "plots"):
        for out in STAGES[stage].get(kind, []):
            assert isinstance(out, dict), out
            assert next(iter(out.values()))["persist"] is True


def test_every_stage_module_has_a_stage_and_runs_without_dvc_or_papermill():
    helpers = {"explained", "files", "index", "paths", "pictures", "plan", "results", "stage", "warm"}
    modules = {path.stem for path in (ROOT / "pipeline").glob("*.py")} - helpers - {"__init__"}
    assert modules == {stage["cmd"].split()[2].removeprefix("pipeline.") for stage in STAGES.values()}
    for module in modules - {"reports"}:
        assert "papermill" not in (ROOT / f"pipeline/{module}.py").read_text()
        assert "import dvc" not in (ROOT / f"pipeline/{module}.py").read_text()


def test_nothing_in_the_library_imports_the_pipeline():
    for path in (ROOT / "src").rglob("*.py"):
        assert all("src" in str(file.relative_to(ROOT)) for file in imported(path, inside_functions=True)), path
