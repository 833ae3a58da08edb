"""The structure of the code: allowed imports between folders, files that may draw, sizes of files and folders."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from bla.runtime.imports import EXEMPT
from pipeline.stages.code import DATA

ROOT = Path(__file__).parents[1]
BLA, PIPELINE = ROOT / "src/bla", ROOT / "pipeline"
MAY_IMPORT = {
    "base": set(),
    "runtime": {"base"},
    "method": {"base", "runtime"},
    "networks": {"base", "runtime", "method"},
    "datasets": {"base", "runtime", "method", "networks"},
    "explainers": {"base", "runtime", "method", "networks"},
    "metrics": {"base", "runtime", "method", "networks", "datasets", "explainers"},
    "inference": set(),
    "plotting": {"base", "runtime"},
    "experiments": {"base", "runtime", "method", "networks", "datasets", "explainers", "metrics", "inference", "plotting"},
    "claims": {"base", "runtime", "inference", "experiments"},
    "report": {"base", "runtime", "inference", "plotting", "experiments", "claims"},
    "own_classifier": {"base", "runtime", "method", "networks", "datasets", "explainers", "metrics", "plotting", "report"},
}  # fmt: skip
"""Each folder of src/bla and the folders that it may import."""
LARGEST_FILE, LARGEST_STAGE, MOST_IN_A_FOLDER, MOST_ROOMS = 400, 75, 16, 13
FILES = [path for folder in (BLA, PIPELINE) for path in sorted(folder.rglob("*.py"))]


def imports(path):
    """All modules that a file imports, also inside functions and for type checking."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def name_of(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", [path for path in FILES if path.is_relative_to(BLA)], ids=name_of)
def test_folders_import_only_lower_layers(path):
    room = path.relative_to(BLA).parts[0]
    for module in imports(path):
        top, _, rest = module.partition(".")
        assert top != "pipeline", f"{path} imports {module}"
        if top == "bla" and room.removesuffix(".py") not in ("__init__", "api", "cli"):
            other = rest.partition(".")[0]
            assert other == room or other in MAY_IMPORT[room], f"{path} imports {module}"


def test_the_folders_are_those_of_the_plan():
    rooms = {path.name for path in BLA.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert rooms == set(MAY_IMPORT)
    assert len(rooms) <= MOST_ROOMS
    assert {path.name for path in BLA.glob("*.py")} <= {"__init__.py", "api.py", "cli.py"}


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_only_plotting_figures_and_reports_draw(path):
    if not {module.split(".")[0] for module in imports(path)} & {"matplotlib", "seaborn"}:
        return
    place = path.relative_to(ROOT).as_posix()
    figures = place.startswith("src/bla/experiments/") and path.name == "figures.py"
    # artifacts/figures.py writes figures to files and names their type.
    assert (
        figures
        or place.startswith(("src/bla/plotting/", "src/bla/report/"))
        or place == "pipeline/artifacts/figures.py"
    )


@pytest.mark.parametrize("path", [path for path in FILES if path.parent.name == "stages"], ids=name_of)
def test_no_stage_imports_another(path):
    assert not [module for module in imports(path) if module.startswith("pipeline.stages")]
    assert len(path.read_text().splitlines()) <= LARGEST_STAGE


@pytest.mark.parametrize("path", [path for path in FILES if path != PIPELINE / "run/stage.py"], ids=name_of)
def test_no_file_imports_a_stage_and_few_files_import_by_name(path):
    assert not [module for module in imports(path) if module.startswith("pipeline.stages")]
    calls = {ast.unparse(node.func) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)}
    by_name = {BLA / "explainers/registry.py", BLA / "networks/sources.py", PIPELINE / "run/estimate.py"}
    assert path in by_name or not calls & {"import_module", "importlib.import_module", "__import__"}


@pytest.mark.parametrize("path", [p for p in FILES if p.is_relative_to(BLA / "experiments")], ids=name_of)
def test_an_experiment_imports_no_other_experiment(path):
    parts = path.relative_to(BLA / "experiments").parts
    for module in imports(path):
        if module.startswith("bla.experiments."):
            assert module.split(".")[2] in ("runs", parts[0]), module


def test_the_code_folders_contain_only_python_and_what_pages_are_made_of():
    """A data file would affect results without being in an import closure; the stage `code` adds those of `DATA`."""
    files = {path for path in BLA.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert {path.suffix for path in files if path.parent != BLA / "report/browser"} == {".py"}
    assert {path.suffix for path in files} == {".py", *DATA}


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_stages_run_without_dvc_and_papermill(path):
    allowed = {"papermill"} if path.parent.name == "report" else set()
    assert not {module.split(".")[0] for module in imports(path)} & {"dvc", "papermill"} - allowed


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_files_are_short(path):
    assert len(path.read_text().splitlines()) <= LARGEST_FILE


@pytest.mark.parametrize("folder", sorted({path.parent for path in FILES} - {PIPELINE / "stages"}), ids=name_of)
def test_folders_are_small(folder):
    inside = [
        p
        for p in folder.iterdir()
        if p.name not in ("__pycache__", "__init__.py") and (p.is_dir() or p.suffix == ".py")
    ]
    assert len(inside) <= MOST_IN_A_FOLDER


def test_the_tests_have_the_same_folders():
    folders = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir() and any(path.glob("test_*.py"))}
    assert folders <= set(MAY_IMPORT) | {"pipeline", "precision", "end_to_end", "faults"}


def test_few_files_are_exempt_from_closures():
    assert len(EXEMPT) <= 4
    for name in EXEMPT:
        package, _, rest = name.partition("/")
        assert ({"bla": BLA, "pipeline": PIPELINE}[package] / rest).exists()


@pytest.mark.slow
def test_importing_bla_loads_no_heavy_libraries():
    heavy = ("matplotlib", "seaborn", "dvc", "dask", "pandas", "timm")
    code = f"import sys, bla; sys.exit(', '.join(set(sys.modules) & set({heavy!r})) or 0)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env={"PYTHONPATH": "src"}, capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").glob("*.py")), ids=name_of)
def test_imports_of_the_benchmarks_exist(path):
    for module in imports(path):
        parent, _, name = module.rpartition(".")
        if module.split(".")[0] in ("bla", "pipeline") and parent:
            assert hasattr(importlib.import_module(parent), name), module
