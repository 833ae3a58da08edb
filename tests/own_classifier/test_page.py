"""The examples of docs/own_classifier.md run as they stand."""

import json
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest
import torch
from torchvision import models

import bla
from bla import api, cli

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "own_classifier.md").read_text()


@pytest.fixture
def site(photos, tmp_path, monkeypatch):
    """A folder with all files that the page names."""
    monkeypatch.chdir(tmp_path)
    for split in ("train", "test"):
        shutil.copytree(photos, tmp_path / "photos" / split)
    shutil.copy(photos / "cat/0.png", tmp_path / "photo.jpg")
    (tmp_path / "labels.txt").write_text("cat\ndog\n")
    torch.manual_seed(0)
    torch.save(models.resnet18(num_classes=2).state_dict(), tmp_path / "my.pth")
    return tmp_path


@pytest.mark.slow
def test_the_python_examples(site):
    examples = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(examples) == 5
    names = {"__name__": "page"}
    for example in examples:
        small = re.sub(r"\b224\b", "64", example).replace("256", "72")  # resnet18 on small photographs takes seconds
        exec(small, names)
    assert (site / "out/manifest.json").exists()
    assert set(names["scores"]["method"]) == {"cam", "random", "theirs"}
    assert list(names["record"].results) == ["cam", "random"]


@pytest.mark.slow
def test_the_notebook_explains_a_flower_by_cells_that_suffice_for_its_class():
    cells = [cell for cell in json.loads((DOCS / "one_photograph.ipynb").read_text())["cells"] if cell["cell_type"] == "code"]  # fmt: skip
    assert not any(cell["outputs"] for cell in cells)
    code = "".join("".join(cell["source"]) + "\n" for cell in cells).replace("%matplotlib inline", "")
    names = {"__name__": "notebook"}
    exec(code.replace("masks=200", "masks=10"), names)
    table = names["record"].table().set_index("method")
    assert (table["predicted"] == "daisy").all()
    assert (
        table.loc["cam", "probability_with_explained_cells"] > table.loc["random", "probability_with_explained_cells"]
    )
    assert (names["folder"] / "explained/overlays/rise/flower.jpg.png").exists()


@pytest.mark.slow
def test_the_commands(site, monkeypatch, capsys):
    (commands,) = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    for line in commands.splitlines():
        short = line.replace("--output modules", "--output modules --runs 1 --epochs 1")
        # Its size, so that the test is short.
        small = "" if line.split()[1] in ("methods", "browse") else " --size 64"
        small += " --methods cam" if line.startswith("bla plan") else ""
        monkeypatch.setattr(sys, "argv", shlex.split(short + small))
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert not end.value.code, capsys.readouterr().err
    assert "summary.csv" in capsys.readouterr().out


def test_the_names_of_bla_are_those_of_its_api():
    names = {name for name in vars(api) if not name.startswith("_")}
    assert set(bla.__all__) == set(api.__all__) == names
    assert all(getattr(bla, name) is getattr(api, name) for name in bla.__all__)
    assert set(bla.__all__) <= set(dir(bla))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        bla.nothing  # noqa: B018
