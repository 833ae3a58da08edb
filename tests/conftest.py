"""What several files of tests need, and one thread a process: two workers with two threads each wait for each other."""

import os
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")

from pipeline.run.stage import run_stage


def end_of(monkeypatch, main, *words):
    """With what a stage ends in this process: None for well, or its message or exit code."""
    monkeypatch.setattr(sys, "argv", [f"{words[0]}.py", *words[1:]])
    try:
        run_stage(main)
    except SystemExit as end:
        return end.code
