"""README and docs are correct: tables are outputs of the pipeline; links, files and settings exist."""

import ast
import hashlib
import re
import tomllib
from pathlib import Path

import pytest
import torch
import yaml
from page_examples import files

from bla.base.specs import Backbone
from bla.explainers.all_maps import features_of
from bla.explainers.contract import check_explainer, check_learned
from bla.explainers.interface import Explainer, LearnedExplainer, TrainingData
from bla.method.initialisation import initial_head
from bla.networks.backbones import build_backbone
from bla.networks.classifier import Classifier
from pipeline.run.settings import load_settings

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = {path: path.read_text() for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}
EVERYTHING = "\n".join(PAGES.values())
PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text())
STAGES = {}
for file in ("dvc.yaml", "reports/study/dvc.yaml"):
    STAGES |= yaml.safe_load((ROOT / file).read_text())["stages"]
OUTPUTS = {
    next(iter(out)) for stage in STAGES.values() for kind in ("outs", "metrics", "plots") for out in stage.get(kind, [])
}


def setting(name):
    here = PARAMS
    for part in name.split("."):
        here = here[part]
    return here


def is_output(path):
    path = path.rstrip("/")  # an output, a folder of outputs, or a file in an output that is a folder
    return any(out.startswith(path) or path.startswith(f"{out}/") for out in OUTPUTS)


def test_the_readme_is_short():
    assert len([word for word in README.split() if re.search(r"\w", word)]) <= 1000
    assert len(README.splitlines()) <= 120
    assert [line for line in README.splitlines() if len(line) > 140 and not line.startswith("|")] == []


def test_the_table_is_the_output_of_the_pipeline():
    (shown,) = re.findall(r"<!-- table1:.*?-->\n(.*?)<!-- /table1 -->", README, re.DOTALL)
    assert shown == (ROOT / "reports/tables/table1.md").read_text(), "run make readme"


@pytest.mark.parametrize(("picture", "drawn"), [("overview", "overview_painted_birds"), ("figure3", "figure3")])
def test_the_pictures_are_outputs_of_the_pipeline(picture, drawn):
    stages = yaml.safe_load((ROOT / "dvc.lock").read_text())["stages"].values()
    hashes = {out["path"]: out["md5"] for stage in stages for out in stage.get("outs", [])}
    found = hashlib.md5((ROOT / f"reports/{picture}.png").read_bytes()).hexdigest()
    assert found == hashes[f"reports/figures/{drawn}.png"], "run make readme"


@pytest.mark.parametrize(
    ("page", "target"),
    sorted({(page.name, target) for page, text in PAGES.items() for target in re.findall(r"\]\(([^)#]+)\)", text)}),
)
def test_links_and_pictures_exist(page, target):
    folder = ROOT if page == "README.md" else ROOT / "docs"
    assert target.startswith("https://") or (folder / target).exists()


def rows():
    (table,) = re.findall(r"\| of the paper \|.*?\n\n", README, re.DOTALL)
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:] if line]


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0])
def test_everything_under_where_is_it_exists(row):
    _, function, settings, output = row
    linked = re.search(r"\[`(\w+)`\]\((.+?)\)", function)
    assert linked
    defined = {getattr(node, "name", None) for node in ast.parse((ROOT / linked[2]).read_text()).body}
    defined |= {t.id for node in ast.parse((ROOT / linked[2]).read_text()).body if isinstance(node, ast.Assign | ast.AnnAssign) for t in ([node.target] if isinstance(node, ast.AnnAssign) else node.targets) if isinstance(t, ast.Name)}  # fmt: skip
    assert set(re.findall(r"`(\w+)`", function)) <= defined
    for name in re.findall(r"`([\w.]+)`", settings):
        setting(name)
    for path in re.findall(r"`([\w./]+)`", output):
        assert is_output(path), path


def test_the_tree_of_folders_is_that_of_the_checkout():
    (tree,) = re.findall(r"```\nsrc/bla/(.*?)```", README, re.DOTALL)
    rooms = set(re.findall(r"^  (\w+)/", tree, re.MULTILINE))
    assert rooms == {path.name for path in (ROOT / "src/bla").iterdir() if path.is_dir() and path.name != "__pycache__"}
    for name in re.findall(r"(\w+)/ \(", tree.split("pipeline/")[-1]):
        assert (ROOT / "pipeline" / name).is_dir()


EXECUTED = {
    "browser.md": {"python": "report/test_browser.py"},
    "own_classifier.md": {"python": "own_classifier/test_page.py", "sh": "own_classifier/test_page.py"},
    "own_images.md": {"python": "end_to_end/test_own_methods_and_networks.py", "yaml": "pipeline/test_own_images.py"},
    "own_methods.md": {"python": "test_documents.py"},
    "tutorial.md": {"python": "end_to_end/test_pages.py"},
    "own_dataset.md": dict.fromkeys(("python", "diff", "yaml"), "end_to_end/test_pages.py"),
    "own_variant.md": dict.fromkeys(("diff", "yaml"), "end_to_end/test_pages.py"),
    "own_metric.md": dict.fromkeys(("python", "diff"), "end_to_end/test_pages.py"),
}  # fmt: skip
"""The test that executes the examples of a page, by language."""


def test_every_example_in_the_docs_is_executed_by_a_test():
    for page in sorted((ROOT / "docs").glob("*.md")):
        languages = set(re.findall(r"^```(\w+)", page.read_text(), re.MULTILINE)) - {"mermaid"}
        tests = EXECUTED.get(page.name, {})
        # Commands are checked below: their targets, settings and stages exist.
        assert languages - {"sh"} == set(tests) - {"sh"}, page.name
        for test in tests.values():
            text = (ROOT / "tests" / test).read_text()
            assert "page_examples" in text, test
            assert f'"{page.name}"' in text, test


METHODS_OF_ONES_OWN = {
    Path(path).stem: code for path, code in files("own_methods.md").items() if path.startswith("src/bla/explainers/")
}


@pytest.mark.parametrize(("name", "code"), METHODS_OF_ONES_OWN.items(), ids=list(METHODS_OF_ONES_OWN))
def test_the_example_methods_pass_the_battery(name, code):
    defined = {"__name__": name}
    exec(code, defined)
    classes = [v for v in defined.values() if isinstance(v, type) and v.__module__ == name]
    (method,) = [v for v in classes if issubclass(v, Explainer)]
    extractor = build_backbone(
        Backbone(architecture="test_resnet", weights="none", normalisation="imagenet", output_stride=16), 64
    ).eval()
    head = initial_head([0], extractor.model.num_features, 3)
    classifier = Classifier(extractor.requires_grad_(False), head).eval()
    images = torch.randint(0, 256, (6, 64, 64, 3), dtype=torch.uint8)
    labels, schedule = torch.tensor([0, 1, 2, 0, 1, 2]), load_settings().dataset["photos"].training
    explainer = method(classifier)
    if isinstance(explainer, LearnedExplainer):
        data = TrainingData(
            features_of(classifier, images), (4, 4), images.numpy(), labels, schedule, torch.device("cpu")
        )
        check_learned(explainer, data, [5])
    check_explainer(explainer, images, labels)


def test_the_flowchart_has_every_stage():
    drawn = set(re.findall(r"\w+", re.search(r"flowchart LR(.*?)```", EVERYTHING, re.DOTALL)[1]))
    assert drawn == set(STAGES)


def test_settings_named_in_commands_exist():
    names = re.findall(r"-S '?([a-z_0-9.]+)=", EVERYTHING)
    assert len(names) > 5
    for name in names:
        setting(name)


def test_named_files_and_stages_exist():
    for path in re.findall(r"`((?:reports|data|models)/[\w./]+)`", EVERYTHING):
        assert is_output(path) or (ROOT / path).exists() or path.startswith("data/raw"), path
    for stage in re.findall(r"stage `(\w+)`", EVERYTHING):
        assert stage in STAGES


def test_named_make_targets_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"make ([a-z-]+)`", EVERYTHING)) <= targets


@pytest.mark.parametrize("path", [ROOT / "Makefile", *sorted(ROOT.glob("benchmarks/*.md"))], ids=lambda path: path.name)
def test_modules_named_elsewhere_exist(path):
    for name in re.findall(r"\b(?:src|pipeline)/[\w/]+\.py", path.read_text()):
        assert (ROOT / name).exists(), name


def test_the_version_to_cite_is_that_of_the_package():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cited["version"] == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert re.search(r"^## Unreleased$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
