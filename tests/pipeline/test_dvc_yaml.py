"""dvc.yaml against the code: a stage depends on what it imports, no more and no less; an edit of any of it is noticed."""

from pathlib import Path

import pytest
import yaml

from bla.runtime.imports import closure
from pipeline.run.dependencies import code_of, with_code

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "dvc.yaml").read_text()
STAGES = yaml.safe_load(TEXT)["stages"]


def named_code(stage):
    return [path for path in STAGES[stage]["deps"] if path.startswith(("pipeline/", "src/"))]


def test_the_code_dependencies_are_those_of_the_import_closure():
    assert with_code(TEXT) == TEXT, "dvc.yaml is stale; run make dvc-deps"


def test_an_import_more_makes_dvc_yaml_stale(tmp_path, make_project):
    project = make_project(tmp_path, copy=True)
    module = project / "src/bla/inference/paired.py"
    module.write_text("import bla.runtime.adam\n" + module.read_text())
    assert with_code(TEXT, project) != TEXT
    assert "src/bla/runtime/adam.py" in code_of("tests", project)


def test_an_import_inside_a_function_is_a_dependency(tmp_path, make_project):
    project = make_project(tmp_path, copy=True)
    module = project / "src/bla/inference/paired.py"
    module.write_text(module.read_text() + "\n\ndef late():\n    import bla.runtime.adam\n")
    assert "src/bla/runtime/adam.py" in code_of("tests", project)


def test_the_folders_of_methods_are_dependencies_of_what_reaches_methods_by_name():
    families = {path.parent.relative_to(ROOT).as_posix() for path in ROOT.glob("src/bla/explainers/*/[!_]*.py")}
    assert families <= set(named_code("maps"))


def test_a_new_method_makes_the_maps_stage_depend_on_what_it_imports(tmp_path, make_project):
    project = make_project(tmp_path, copy=True)
    (project / "src/bla/explainers/posthoc/new.py").write_text("import bla.datasets.moved_digits\n")
    assert "src/bla/datasets/moved_digits.py" in code_of("maps", project)
    assert "src/bla/datasets/moved_digits.py" not in code_of("maps")


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_names_its_file_and_its_closure(stage):
    start = ROOT / f"pipeline/stages/{stage}.py"
    covered = {
        file
        for path in named_code(stage)
        for file in ((ROOT / path).rglob("*.py") if (ROOT / path).is_dir() else [ROOT / path])
    }
    assert start in covered
    assert set(closure([start])) <= covered


def test_every_stage_has_a_file_of_its_name_and_every_file_a_stage():
    assert {path.stem for path in (ROOT / "pipeline/stages").glob("[!_]*.py")} == set(STAGES)
    for name, stage in STAGES.items():
        assert stage["cmd"].split()[:4] == ["python", "-m", "pipeline", name]


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_says_what_it_does_and_keeps_its_outputs_until_new_ones_are_complete(stage):
    assert STAGES[stage]["desc"]
    for kind in ("outs", "metrics", "plots"):
        for out in STAGES[stage].get(kind, []):
            assert isinstance(out, dict), out
            assert next(iter(out.values()))["persist"] is True


def upstream(stage):
    """The stages that must have run before a stage, directly or not."""
    made = {
        next(iter(out)).split("/${")[0]: name
        for name, other in STAGES.items()
        for kind in ("outs", "metrics", "plots")
        for out in other.get(kind, [])
    }
    before, waiting = set(), [stage]
    while waiting:
        for dependency in STAGES[waiting.pop()].get("deps", []):
            path = dependency.split("/${")[0]
            found = {
                name
                for out, name in made.items()
                if out == path or out.startswith(f"{path}/") or path.startswith(f"{out}/")
            }
            waiting += found - before
            before |= found
    return before


EXPERIMENTS = {"small_cnn", "two_network_l2x", "two_network_l2x_digits", "abandoned_modules", "unstated_choices"} | {
    "temperature_threshold", "explanation_size", "faithfulness", "compare_methods", "claims", "gallery",
}  # fmt: skip


def test_table_1_waits_for_nothing_but_the_trainings_of_its_columns():
    assert upstream("table1") == {"settings", "prepare", "backbone", "features", "baseline", "train_variant", "tests"}


def test_table_2_waits_for_no_other_experiment():
    assert not upstream("table2") & EXPERIMENTS
    assert {"lime", "maps"} <= upstream("table2")
