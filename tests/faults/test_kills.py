"""SIGKILL: no partial file counts as a result, and finished work is not repeated."""

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from commands import ENV, run

pytestmark = pytest.mark.slow

FEATURES = Path("data/features/painted_birds")
KILL = "import os, signal\ndef kill(*_, **__):\n    os.kill(os.getpid(), signal.SIGKILL)\n"
AS_THE_FOURTH_ARRAY_BEGINS = """
import numpy as np
write, arrays = np.lib.format.write_array_header_1_0, []
def strike(file, header):
    arrays.append(write(file, header))
    file.flush()
    if len(arrays) == 4:
        kill()
np.lib.format.write_array_header_1_0 = strike
"""
AS_THE_THIRD_CHUNK_IS_WRITTEN_BUT_NOT_COUNTED = """
from bla.runtime import cache
save_text, counts = cache.save_text, []
def strike(path, text):
    counts.extend([path] if path.name == "done.json" else [])
    if len(counts) == 3:
        kill()
    save_text(path, text)
cache.save_text = strike
"""
AS_RISE_BEGINS = "from bla.explainers.posthoc.rise import RISE\nRISE.explain = kill\n"


def test_a_partially_written_file_is_ignored(here, end_of, edit_params, process, contents):
    assert end_of("prepare", "painted_birds") is None
    edit_params(here, {"dataset.painted_birds.images.train_images": 80})
    done = process(here, "prepare", "painted_birds", before=KILL + AS_THE_FOURTH_ARRAY_BEGINS)
    assert (done.returncode, len(list(Path("data").rglob("*.part")))) == (-9, 1)
    assert end_of("prepare", "painted_birds") is None
    again = contents("data")
    shutil.rmtree("data/images")
    assert end_of("prepare", "painted_birds") is None
    assert contents("data") == again


def test_extraction_resumes_after_its_last_whole_chunk_and_ends_with_the_same_bytes(
    extracting, here, process, contents
):
    extracting()
    undisturbed = contents(FEATURES)
    done = process(here, "features", "painted_birds", before=KILL + AS_THE_THIRD_CHUNK_IS_WRITTEN_BUT_NOT_COUNTED)
    assert done.returncode == -9
    assert [json.loads(path.read_text())["rows"] for path in Path(".work").glob("features-*/done.json")] == [80]
    assert contents(FEATURES) == undisturbed
    shutil.rmtree(FEATURES)
    assert extracting() == [80, 0]
    assert not list(Path(".work").glob("features-*"))
    assert contents(FEATURES) == undisturbed


def test_finished_methods_are_not_computed_again(explained, end_of, process, maps_and_scores):
    def cached():
        return {path.name: path.stat().st_mtime_ns for path in Path(".work").glob("maps-*")}

    before = maps_and_scores()
    shutil.rmtree(".work")
    done = process(explained, "maps", "painted_birds", before=KILL + AS_RISE_BEGINS)
    assert done.returncode == -9
    earlier = cached()
    assert sorted(name.split("-")[2] for name in earlier) == ["cam", "lime"]
    assert maps_and_scores() == before
    assert end_of("maps", "painted_birds") is None
    assert {name: cached()[name] for name in earlier} == earlier
    assert maps_and_scores() == before


WAIT = """
import os, sys, time
from pathlib import Path
if sys.argv[1:2] == ["settings"]:
    from bla.runtime.processes import in_processes
    Path("pid").write_text(str(os.getpid()))
    list(in_processes(time.sleep, [100, 100]))
"""
"""Appended to the module that reads params.yaml: the stage `settings` waits, with two more processes."""


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs Linux")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_stages_and_their_processes_end_within_seconds_of_a_killed_dvc(number, tmp_path, make_project):
    project = make_project(tmp_path / "killed", copy=True)
    path = project / "pipeline/run/settings.py"
    path.write_text(f"{path.read_text()}\n\n{WAIT}")
    run(project, "git", "init", "-q")
    dvc = subprocess.Popen(["dvc", "repro", "settings"], cwd=project, env=ENV, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    until(lambda: (project / "pid").is_file() and len(children(int((project / "pid").read_text()))) == 2, 60)
    stage = int((project / "pid").read_text())
    processes = [stage, *children(stage)]
    os.kill(dvc.pid, number)
    dvc.wait()
    until(lambda: not any(alive(pid) for pid in processes), 10)


def children(pid):
    """The processes that a process has started."""
    pids = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
    return [other for other in pids if state(other)[1:2] == [str(pid)]]


def state(pid):
    """State and parent of a process, then more; empty if it has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def alive(pid):
    return state(pid)[:1] not in ([], ["Z"])


def until(condition, seconds):
    """Wait until the condition holds; AssertionError after so many seconds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.2)
