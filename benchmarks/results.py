"""Timing, and a table of results in benchmarks/results.md with machine, versions and commit."""

import os
import platform
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import torch

RESULTS = Path(__file__).with_name("results.md")


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Wall time of a call, including queued GPU work."""
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def record(columns: list[str], rows: list[str], device: torch.device) -> None:
    """Print a table, and append it to benchmarks/results.md."""
    chip = torch.cuda.get_device_name() if device.type == "cuda" else f"{os.cpu_count()} CPU cores"
    found = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    commit = found.stdout.strip() or "unknown"
    heading = (
        f"## {time.strftime('%Y-%m-%d')}, {chip} ({platform.machine()}), torch {torch.__version__}, commit {commit}"
    )
    table = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|", *rows]
    text = "\n".join([heading, "", *table, ""])
    print(text)
    with RESULTS.open("a") as file:
        file.write(text + "\n")
