"""dvc.yaml against the code: a stage depends on exactly the code that it imports, and every edit is noticed."""

from pathlib import Path

import networkx as nx
import pytest
import yaml
from commands import run
from dvc.dependency.param import ParamsDependency
from dvc.repo import Repo

from bla.report.browser.builder import SCRIPTS
from bla.runtime.imports import EXEMPT, closure, name_of
from pipeline.stages.code import code_of

ROOT = Path(__file__).parents[2]
DEFAULT, BY_NAME = (
    yaml.safe_load((ROOT / file).read_text())["stages"] for file in ("dvc.yaml", "reports/study/dvc.yaml")
)
STAGES = DEFAULT | BY_NAME
"""All stages; those of `BY_NAME` run only by name."""
OTHERS = [stage for stage in STAGES if stage != "code"]


def test_every_stage_depends_on_its_code_list_and_the_lists_depend_on_all_code():
    assert STAGES["code"]["deps"] == ["pipeline", "src"]
    assert {next(iter(out)) for out in STAGES["code"]["outs"]} == {f"data/code/{stage}.txt" for stage in OTHERS}
    for stage in OTHERS:
        assert [path for path in STAGES[stage]["deps"] if path.startswith("data/code")] == [f"data/code/{stage}.txt"]
        assert not [path for path in STAGES[stage]["deps"] if path.startswith(("pipeline", "src"))]


@pytest.fixture(scope="module")
def copied(tmp_path_factory, make_project):
    """A copy of the code, and `changed(path, text)`: the stages whose code list changes if the text is appended."""
    project = make_project(tmp_path_factory.mktemp("copied"), copy=True)
    before = {stage: code_of(stage, project) for stage in OTHERS}

    def changed(path, text="\nEDITED = True\n"):
        file = project / path
        old = file.read_text() if file.exists() else None
        file.write_text((old or "") + text)
        after = {stage for stage in OTHERS if code_of(stage, project) != before[stage]}
        file.unlink() if old is None else file.write_text(old)
        return after

    return changed


WITH_METHODS = {
    *("agreement", "errors", "faithfulness", "fit", "learned_methods", "maps", "multi_label_faithfulness"),
    *("multi_label_fit", "planted_bias", "settings", "structure", "study"),
}
"""The stages that may import any explanation method."""


def depending_on(path):
    return {stage for stage in OTHERS if any(line.endswith(f"  {path}") for line in code_of(stage, ROOT).splitlines())}


@pytest.mark.parametrize(
    ("path", "stages"),
    [
        ("pipeline/stages/table1.py", {"table1"}),
        ("src/bla/experiments/table1/tests.py", {"tests"}),
        ("src/bla/claims/rules.py", {"claims"}),
        ("src/bla/metrics/curves.py", {"faithfulness", "learned_methods"}),
        ("src/bla/explainers/posthoc/rise.py", WITH_METHODS),
        ("src/bla/report/front_page.py", {"reports"}),
        ("src/bla/report/browser/drawing.js", {"browser"}),
        ("src/bla/base/specs.py", {"settings"}),
        ("pipeline/run/settings.py", {"settings"}),
        ("pipeline/run/stage.py", set()),
        ("pipeline/__main__.py", set()),
    ],
)
def test_an_edit_reruns_only_these_stages(path, stages, copied):
    assert copied(path) == stages


SOURCES = sorted(
    path for folder in ("src", "pipeline") for path in (ROOT / folder).rglob("*.py") if path.stem[0] != "_"
)


@pytest.mark.slow
@pytest.mark.parametrize("file", SOURCES[::12], ids=name_of)
def test_an_edit_reruns_only_the_stages_that_import_the_file(file, copied):
    path = file.relative_to(ROOT).as_posix()
    assert copied(path) == depending_on(path)


def test_imports_inside_functions_and_new_imports_are_noticed(copied):
    late = "\n\ndef late():\n    import bla.runtime.adam\n"
    assert "tests" in copied("src/bla/inference/paired.py", late)
    assert copied("src/bla/explainers/posthoc/new.py", "import bla.datasets.moved_digits\n") == WITH_METHODS


def test_a_file_whose_imports_cannot_be_followed_is_named_in_one_message(here, end_of):
    import shutil

    (here / "src").unlink()
    shutil.copytree(ROOT / "src", here / "src")
    (here / "src/bla/inference/paired.py").write_text("def")
    message = end_of("code")
    assert "inference/paired.py" in message


@pytest.mark.parametrize("stage", OTHERS)
def test_a_list_holds_the_closure_of_the_stage(stage):
    names = {line.split()[1] for line in code_of(stage, ROOT).splitlines()}
    expected = {path.relative_to(ROOT).as_posix() for path in closure([ROOT / f"pipeline/stages/{stage}.py"])}
    if stage == "browser":
        expected |= {f"src/bla/report/browser/{name}" for name in ("browser.html", "browser.css", *SCRIPTS)}
    assert expected <= names
    assert {name.replace("src/", "") for name in names - expected} == (set(EXEMPT) if stage == "settings" else set())
    assert name_of(ROOT / f"pipeline/stages/{stage}.py") in names


def test_stages_and_files_have_the_same_names():
    assert {path.stem for path in (ROOT / "pipeline/stages").glob("[!_]*.py")} == set(STAGES)
    for name, stage in STAGES.items():
        # A whole item is quoted by DVC, a part of it such as ${item.dataset} is not.
        assert stage["cmd"] == f"python -m pipeline {name}" + (" ${item}" if "matrix" in stage else "")


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_has_a_description_and_persistent_outputs(stage):
    assert STAGES[stage]["desc"]
    for kind in ("outs", "metrics", "plots"):
        for out in STAGES[stage].get(kind, []):
            assert isinstance(out, dict), out
            assert next(iter(out.values()))["persist"] is True


def test_dvc_checkout_succeeds_where_no_questionnaire_was_built_and_keeps_one_that_was(tmp_path):
    file = tmp_path / "reports/study/dvc.yaml"
    file.parent.mkdir(parents=True)
    file.write_text((ROOT / "reports/study/dvc.yaml").read_text())
    run(tmp_path, "dvc", "init", "--no-scm", "--quiet")
    run(tmp_path, "dvc", "checkout", "--force")
    page = file.with_name("questionnaire.html")
    page.write_text("the page that people got")
    run(tmp_path, "dvc", "checkout", "--force")
    assert page.exists()


def upstream(stage):
    """All direct and indirect predecessors of a stage."""
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
    "planted_bias", "subset_selection", "temperature_threshold", "explanation_size", "faithfulness", "compare_methods", "claims", "gallery",
}  # fmt: skip


def test_no_stage_of_the_default_run_needs_the_questionnaire():
    assert not [stage for stage in DEFAULT if "study" in upstream(stage)]
    assert {"backbone", "baseline", "features", "prepare"} <= upstream("study")


def test_table_1_depends_only_on_the_training_of_its_columns():
    assert upstream("table1") == {
        "code",
        "settings",
        "prepare",
        "backbone",
        "features",
        "baseline",
        "train_variant",
        "tests",
    }


def test_a_dataset_that_does_not_run_reaches_one_stage():
    """The others read data/datasets.json; the datasets of `multi_label` need not be in `datasets`."""
    assert [stage for stage, spec in STAGES.items() if "dataset" in spec.get("params", [])] == [
        "multi_label_faithfulness"
    ]


def test_table_2_does_not_depend_on_other_experiments():
    assert not upstream("table2") & EXPERIMENTS
    assert {"lime", "maps"} <= upstream("table2")


def test_the_lock_has_no_removed_stages():
    """DVC keeps removed stages, and reads and writes the whole file after every stage."""
    locked = yaml.safe_load((ROOT / "dvc.lock").read_text())["stages"]
    assert {name.partition("@")[0] for name in locked} == set(DEFAULT)


def test_a_setting_of_one_variant_reaches_its_training_and_all_that_shows_it_and_no_other_variant():
    graph, setting = Repo(str(ROOT)).index.graph, "variant.bla_t.threshold_factor"
    reads = {
        stage
        for stage in graph
        for dependency in stage.deps
        if isinstance(dependency, ParamsDependency)
        if any(setting == name or setting.startswith(f"{name}.") for name in dependency.params)
    }
    reached = reads.union(*(nx.ancestors(graph, stage) for stage in reads))
    each = [f"{name}@painted_{kind}" for name in ("maps", "faithfulness", "gallery", "method_gallery") for kind in ("birds", "pair")]  # fmt: skip
    assert {stage.addressing for stage in reached} == {
        *each, "train_variant@painted_birds-bla_t", "train_variant@painted_pair-bla_t",
        "tests", "table1", "table2", "what_the_method_does", "explanation_size", "compare_methods", "claims", "reports",
        "agreement", "browser", "errors", "learned_methods", "planted_bias", "structure", "reports/study/dvc.yaml:study",
        "x_features",  # it depends on the folder of all states, since XNN need not be among them
    }  # fmt: skip
