"""The README tells the truth: its table is the pipeline's, its files and stages exist."""

import hashlib
import re
from pathlib import Path

import pytest
import torch
import yaml

from bla.base.specs import Backbone
from bla.explainers.interface import Explainer, check_explainer
from bla.method.training import initial_head
from bla.networks.backbones import build_backbone
from bla.networks.classifier import Classifier

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_table_is_the_one_the_pipeline_wrote():
    (shown,) = re.findall(r"<!-- table1:.*?-->\n(.*?)<!-- /table1 -->", README, re.DOTALL)
    assert shown == (ROOT / "reports/tables/table1.md").read_text(), "run make readme"


@pytest.mark.parametrize(("picture", "drawn"), [("overview", "overview_cluttered_digits"), ("figure3", "figure3")])
def test_the_pictures_are_those_the_pipeline_drew(picture, drawn):
    stages = yaml.safe_load((ROOT / "dvc.lock").read_text())["stages"].values()
    hashes = {out["path"]: out["md5"] for stage in stages for out in stage.get("outs", [])}
    found = hashlib.md5((ROOT / f"reports/{picture}.png").read_bytes()).hexdigest()
    assert found == hashes[f"reports/figures/{drawn}.png"], "run make readme"


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)#]+)\)", README))))
def test_links_and_pictures_lead_somewhere(target):
    assert target.startswith("https://") or (ROOT / target).exists()


def test_the_method_of_ones_own_keeps_its_promises():
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    found: dict[str, type[Explainer]] = {}
    exec(code, found)
    extractor = build_backbone(Backbone("test_resnet", "none", "imagenet", 16), 64).eval()
    head = initial_head([0], extractor.model.num_features, 3)
    classifier = Classifier(extractor.requires_grad_(False), head).eval()
    images = torch.randint(0, 256, (3, 64, 64, 3), dtype=torch.uint8)
    check_explainer(found["MyMethod"](classifier), images, torch.tensor([0, 1, 2]))


def test_the_drawing_has_every_stage():
    drawn = set(re.findall(r"\w+", re.search(r"flowchart LR(.*?)```", README, re.DOTALL)[1]))
    assert drawn == set(yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"])


def test_settings_named_in_commands_exist():
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    names = re.findall(r"-S '?([a-z_0-9.]+)=", README)
    assert len(names) > 5
    for name in names:
        here = params
        for part in name.split("."):
            here = here[part]


def test_make_targets_named_in_the_readme_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"make ([a-z-]+)`", README)) <= targets
