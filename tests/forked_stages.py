"""Runs the commands of stages that come on standard input, in the working directory, until one fails.

Each runs in a process forked from this one, which has imported what stages need, so that none has to start Python anew.
"""

import importlib
import os
import sys

import timm  # noqa: F401  # stages import it late
from scipy import stats  # noqa: F401

from pipeline.run.stage import STAGES, run_by_name

for stage in STAGES:
    importlib.import_module(f"pipeline.stages.{stage}")
for command in sys.stdin.read().splitlines():
    print(f"> {command}", flush=True)
    child = os.fork()
    if child == 0:
        run_by_name(command.removeprefix("python -m pipeline ").split())
        sys.exit()
    if os.waitpid(child, 0)[1]:
        sys.exit(f"failed: {command}")
