"""How long each stage of the default run takes.

    make repro && python benchmarks/repro.py

Run it in a fresh clone with nothing else running: it reads the times of the stages in .work, writes
benchmarks/stages.csv, from which `make repro` estimates the time that is left, and appends the sums to
benchmarks/results.md.
"""

import csv
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from results import record

from pipeline.run.environment import choose_device
from pipeline.run.progress import STAGES_IN_ORDER, last_times

FIRST_PARTS = (
    "code",
    "settings",
    "prepare",
    "backbone",
    "features",
    "baseline",
    "train_variant",
    "tests",
    "table1",
    "gallery",
)
"""Stages of Table 1 and its pictures."""


def main() -> None:
    """Write the times of all stages, and their sums."""
    times = last_times()
    started = time.perf_counter()
    subprocess.run(["dvc", "repro", "--quiet"], check=True)
    unchanged = time.perf_counter() - started
    with STAGES_IN_ORDER.open("w", newline="") as file:
        rows = [[*key, seconds] for key, seconds in times.items()]
        csv.writer(file, lineterminator="\n").writerows([["stage", "arguments", "seconds"], *rows])
    table1 = {key: seconds for key, seconds in times.items() if key[0] in FIRST_PARTS}
    datasets = sorted({arguments.split()[0] for stage, arguments in table1 if stage == "features"})
    lines = [f"| Table 1 of {name} with its pictures | {sum(seconds for (_, arguments), seconds in table1.items() if arguments in ('', name) or arguments.startswith(name + ' ')):.0f} s |" for name in datasets]  # fmt: skip
    lines += [
        f"| everything, {len(times)} stages | {sum(times.values()):.0f} s |",
        f"| nothing changed | {unchanged:.1f} s |",
    ]
    record(["make repro", "time"], lines, choose_device())


if __name__ == "__main__":
    main()
