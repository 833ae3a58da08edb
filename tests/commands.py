"""Commands that tests run in a project, such as dvc and git."""

import os
import subprocess
import sys
from pathlib import Path

ENV = os.environ | {
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "BLA_DEVICE": "cpu",
    "PYTHONUNBUFFERED": "1",
} | {f"GIT_{who}_{what}": "test@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}  # fmt: skip
"""The environment of every command: programs of this Python first in the path, no GPU, a git author."""


def run(project: Path, *words: str) -> str:
    """The output of the command; AssertionError with the output if the command fails."""
    done = subprocess.run(words, cwd=project, env=ENV, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def run_stages(project: Path) -> str:
    """The output of all stages that `dvc repro` would run, in the order of DVC's graph, in a third of its time; DVC records nothing."""
    import networkx as nx  # DVC takes a second to import
    from dvc.repo import Repo

    graph = Repo(str(project)).index.graph  # from a stage to those that it needs
    stages = [stage for stage in nx.topological_sort(graph.reverse()) if stage.path_in_repo == "dvc.yaml"]
    script, commands = Path(__file__).with_name("forked_stages.py"), "".join(f"{stage.cmd}\n" for stage in stages)
    code = {"PYTHONPATH": os.pathsep.join([str(project / "src"), str(project)])}
    words = [sys.executable, str(script)]
    done = subprocess.run(
        words, cwd=project, env=ENV | code, input=commands, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert not [out.fs_path for stage in stages for out in stage.outs if not Path(out.fs_path).exists()]
    return done.stdout + done.stderr
