"""How far a run has come: which stage of how many, and how long the rest takes at most."""

import csv
import json
from pathlib import Path

from pipeline.run.environment import WORK

STAGES_IN_ORDER = Path("benchmarks/stages.csv")
"""Stages of the default settings in the order in which DVC runs them, and their seconds on two cores."""
PROVENANCE = WORK / "provenance.jsonl"

Key = tuple[str, str]
"""A stage's name and arguments."""


def progress(name: str, words: list[str]) -> str | None:
    """The place of a stage among all stages, and the time that it and all after it take; None for an unknown stage.

    Stages that have run on this machine take as long as the last time, and the others are slower or faster than in
    `STAGES_IN_ORDER` to the same degree. DVC skips stages that are up to date, so the rest may take less.
    """
    listed = _listed()
    key = name, " ".join(words)
    if key not in listed:
        return None
    here = {key: seconds for key, seconds in last_times().items() if key in listed}
    speed = sum(here.values()) / sum(listed[key] for key in here) if here else 1
    place = list(listed).index(key)
    left = sum(here.get(key, seconds * speed) for key, seconds in list(listed.items())[place:])
    return f"stage {place + 1} of {len(listed)}; all that is left takes at most {_minutes(left)}"


def last_times() -> dict[Key, float]:
    """The seconds that each stage took on this machine when it last ran, in the order in which they first ran."""
    times: dict[Key, float] = {}
    if PROVENANCE.exists():
        for line in PROVENANCE.read_text().splitlines():
            try:
                record = json.loads(line)
            except ValueError:  # of a stage that was killed while it wrote this line
                continue
            key = record["stage"], " ".join(record["arguments"])
            times[key] = float(record["seconds"])
    return times


def _listed() -> dict[Key, float]:
    if not STAGES_IN_ORDER.exists():
        return {}
    with STAGES_IN_ORDER.open(newline="") as file:
        return {(row["stage"], row["arguments"]): float(row["seconds"]) for row in csv.DictReader(file)}


def _minutes(seconds: float) -> str:
    return "a minute" if seconds < 60 else f"{seconds / 60:.0f} min"
