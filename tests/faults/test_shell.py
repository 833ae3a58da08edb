"""Nothing in params.yaml reaches a shell unquoted, whatever target or option starts the pipeline."""

import subprocess

import pytest
import yaml
from commands import ENV, run

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "name", ["x; touch PWNED #", "$(touch PWNED)", "y' ; touch PWNED '", "a`touch PWNED`b", "a\n touch PWNED"]
)
def test_a_name_of_a_dataset_runs_no_command(name, make_project, tmp_path):
    project = make_project(tmp_path, copy=True)
    run(project, "git", "init", "-q")
    path = project / "params.yaml"
    params = yaml.safe_load(path.read_text())
    params["dataset"][name] = params["dataset"]["painted_birds"]
    params["datasets"] = [name]
    path.write_text(yaml.safe_dump(params))
    run(project, "dvc", "repro", "code")
    for words in (("-s", f"prepare@{name}"), ("-k", f"baseline@{name}")):
        done = subprocess.run(
            ("dvc", "repro", *words), cwd=project, env=ENV, capture_output=True, text=True, check=False
        )
        assert done.returncode != 0
        assert not list(project.rglob("PWNED"))
    assert not list(project.glob("data/images/*"))
