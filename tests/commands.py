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
