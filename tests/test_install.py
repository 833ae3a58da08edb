"""`pip install .` installs the library, and a copy of the repository imports its own code all the same."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
WHERE = "import pathlib; import bla; print(pathlib.Path(bla.__file__).resolve())"


def output(*words, **options):
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def test_the_build_backend_is_pinned_in_the_lock():
    pinned = {line.partition("==")[0] for line in (ROOT / "requirements.lock").read_text().splitlines()}
    for requirement in PYPROJECT["build-system"]["requires"]:
        name = requirement.partition(">")[0].replace("_", "-")
        assert name in pinned
        assert any(listed.startswith(f"{name}>") for listed in PYPROJECT["project"]["dependencies"])


@pytest.mark.slow
def test_an_installation_without_the_checkout_imports_and_has_the_command(tmp_path):
    checkout, site = tmp_path / "checkout", tmp_path / "site"
    checkout.mkdir()
    for name in ("src", "pyproject.toml", "README.md", "LICENSE"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, checkout / name)
    before = {path for path in checkout.rglob("*") if "__pycache__" not in path.parts}
    output("-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps", "--no-build-isolation", "--no-index", "--target", str(site), str(checkout))  # fmt: skip
    assert {path for path in checkout.rglob("*") if "__pycache__" not in path.parts} == before
    shutil.rmtree(checkout)
    assert output("-c", WHERE, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(site)}) == str(
        site.resolve() / "bla/__init__.py"
    )
    assert (site / "bin/bla").is_file()


@pytest.mark.slow
def test_a_copy_of_the_repository_imports_its_own_code_beside_an_installation(tmp_path):
    shutil.copytree(ROOT / "pipeline", tmp_path / "pipeline")
    (tmp_path / "src/bla").mkdir(parents=True)
    (tmp_path / "src/bla/__init__.py").touch()
    # An editable installation puts the main checkout behind PYTHONPATH, where it wins less often than here.
    found = output("-c", f"import pipeline; {WHERE}", cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT / "src")})
    assert found == str((tmp_path / "src/bla/__init__.py").resolve())
