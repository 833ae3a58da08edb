"""The README tells the truth: its table is the pipeline's, its files and stages exist."""

import hashlib
import re
from pathlib import Path

import pytest
import yaml

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
