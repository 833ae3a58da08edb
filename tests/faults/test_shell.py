"""Nothing in params.yaml reaches a shell unquoted, whatever target or option starts the pipeline."""

import subprocess

import pytest
import yaml
from commands import ENV, run

pytestmark = pytest.mark.slow


NAMES = ["x; touch PWNED #", "$(touch PWNED)", "y' ; touch PWNED '", "a`touch PWNED`b", "a\n touch PWNED"]


@pytest.fixture(scope="module", name="odd")
def odd_project(tmp_path_factory, make_project):
    """A project whose datasets have names with commands in them."""
    folder = make_project(tmp_path_factory.mktemp("odd"), copy=True)
    run(folder, "git", "init", "-q")
    path = folder / "params.yaml"
    params = yaml.safe_load(path.read_text())
    params["dataset"] |= dict.fromkeys(NAMES, params["dataset"]["painted_birds"])
    params["datasets"] = NAMES
    path.write_text(yaml.safe_dump(params))
    run(folder, "dvc", "repro", "code")
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_a_name_of_a_dataset_runs_no_command(name, odd):
    for words in (("-s", f"prepare@{name}"), ("-k", f"baseline@{name}")):
        done = subprocess.run(("dvc", "repro", *words), cwd=odd, env=ENV, capture_output=True, text=True, check=False)
        assert done.returncode != 0
        assert not list(odd.rglob("PWNED"))
    assert not list(odd.glob("data/images/*"))
