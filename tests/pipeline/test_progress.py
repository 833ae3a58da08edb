"""The line that says which stage runs and how long the rest takes."""

import json

import pytest

from pipeline.run import progress
from pipeline.run.progress import last_times


@pytest.fixture
def listed(tmp_path, monkeypatch):
    """Four stages of 60, 300, 120 and 20 s, of which none has run here."""
    rows = [
        "stage,arguments,seconds",
        "prepare,birds,60",
        "lime,birds,300",
        "train_variant,birds bla,120",
        "table1,,20",
    ]
    (tmp_path / "stages.csv").write_text("\n".join(rows) + "\n")
    monkeypatch.setattr(progress, "STAGES_IN_ORDER", tmp_path / "stages.csv")
    monkeypatch.setattr(progress, "PROVENANCE", tmp_path / "provenance.jsonl")
    return tmp_path / "provenance.jsonl"


def record(stage, arguments, seconds):
    return json.dumps({"stage": stage, "arguments": arguments, "seconds": seconds}) + "\n"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("prepare", ["birds"]), "stage 1 of 4; all that is left takes at most 8 min"),
        (("train_variant", ["birds", "bla"]), "stage 3 of 4; all that is left takes at most 2 min"),
        (("table1", []), "stage 4 of 4; all that is left takes at most a minute"),
        (("prepare", ["photos"]), None),
        (("birds", ["prepare"]), None),
    ],
)
def test_before_any_run_the_listed_times_count(listed, words, line):
    assert progress.progress(*words) == line


def test_a_slower_machine_takes_longer_for_the_stages_that_it_has_not_run(listed):
    listed.write_text(record("prepare", ["birds"], 30) + record("prepare", ["birds"], 120) + record("other", [], 9))
    # Twice as slow as listed, so 2 * (300 + 120 + 20) s = 15 min.
    assert progress.progress("lime", ["birds"]) == "stage 2 of 4; all that is left takes at most 15 min"


def test_a_stage_that_ran_here_takes_as_long_as_its_last_run(listed):
    listed.write_text(record("prepare", ["birds"], 60) + record("lime", ["birds"], 300) + record("table1", [], 20))
    assert progress.progress("lime", ["birds"]) == "stage 2 of 4; all that is left takes at most 7 min"
    assert list(last_times()) == [("prepare", "birds"), ("lime", "birds"), ("table1", "")]


def test_a_record_of_a_killed_stage_is_skipped(listed):
    listed.write_text(record("prepare", ["birds"], 60) + record("lime", ["birds"], 300)[:20])
    assert last_times() == {("prepare", "birds"): 60.0}


def test_without_a_list_of_stages_there_is_no_line(listed, tmp_path):
    (tmp_path / "stages.csv").unlink()
    assert progress.progress("table1", []) is None
