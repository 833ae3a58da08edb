"""SIGKILL: no partial file counts as a result, and finished work is not repeated."""

import contextlib
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import ENV, run

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
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


COMPUTING = """
from bla.runtime.processes import in_processes
def main():
    list(in_processes(time.sleep, [100, 100]))
"""
READING = """
import numpy as np
from PIL import Image
from bla.datasets import ImageFile, Listing
from bla.datasets.image_files import read_images
def main():
    Image.fromarray(np.zeros((SIDE, SIDE, 3), np.uint8)).save("large.png")
    files = Listing(Path("."), ["a"], {"train": [ImageFile("large.png", 0)] * 1000})
    for part in read_images(files, "train", 8, "bilinear", processes=2):
        Path("read").touch()
        time.sleep(100)
"""
IN_A_NOTEBOOK = """
import nbformat
from bla.report.notebooks import render
def main():
    cells = ["", "from pathlib import Path; import time; Path('cell').touch(); time.sleep(100)"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    notebook.metadata = {"kernelspec": {"name": "python3", "language": "python"}}
    notebook.cells[0].metadata = {"tags": ["parameters"]}
    nbformat.write(notebook, "waiting.ipynb")
    render(Path("waiting.ipynb"), {}, Path("work"), [])
"""
SERVER = "multiprocessing.forkserver"  # its processes have its words
BUSY = {
    "computing": (COMPUTING, "-m pipeline busy", 3, "params.yaml"),
    "starting to read images": (READING.replace("SIDE", "8"), SERVER, 1, "large.png"),
    "reading large images": (READING.replace("SIDE", "2000"), SERVER, 3, "large.png"),
    "waiting for more images": (READING.replace("SIDE", "8"), SERVER, 3, "read"),
    "starting a kernel": (IN_A_NOTEBOOK, "ipykernel", 1, "waiting.ipynb"),
    "running a notebook": (IN_A_NOTEBOOK, "ipykernel", 1, "cell"),
}
"""Code of a stage, and what shows that it is at work: words of its processes, their number, and a file."""


@pytest.fixture
def adopting():
    """This process adopts those whose parent has ended, as `systemd` of a desktop session does: it is not number 1."""
    adopt = 36  # PR_SET_CHILD_SUBREAPER
    ctypes.CDLL(None).prctl(adopt, 1)
    yield
    ctypes.CDLL(None).prctl(adopt, 0)


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
@pytest.mark.usefixtures("adopting")
@pytest.mark.parametrize(
    ("killed", "number", "busy"),
    [
        *(("dvc", signal.SIGKILL, busy) for busy in BUSY),
        ("dvc", signal.SIGTERM, "computing"),
        ("make", signal.SIGTERM, "computing"),  # it hands its signal on to dvc
        ("make", signal.SIGTERM, "reading large images"),
        ("stage", signal.SIGKILL, "reading large images"),
        ("stage", signal.SIGKILL, "starting a kernel"),
    ],
)
def test_no_process_lives_on_for_more_than_seconds_after_a_kill(killed, number, busy, tmp_path, make_project):
    project = make_project(tmp_path / "killed", copy=True)
    code, words, count, file = BUSY[busy]
    (project / "pipeline/stages/busy.py").write_text(f"import time\nfrom pathlib import Path\n{code}")
    (project / "dvc.yaml").write_text("stages:\n  busy:\n    cmd: python -m pipeline busy\n")
    for name in ("Makefile", "requirements.lock"):
        shutil.copy(ROOT / name, project / name)
    (project / ".venv/bin").mkdir(parents=True)  # `make` finds it complete
    shutil.copy(ROOT / "requirements.lock", project / ".venv/installed.lock")
    for name in ("bla", "dvc"):
        (project / ".venv/bin" / name).symlink_to(shutil.which("dvc", path=ENV["PATH"]))
    run(project, "git", "init", "-q")
    command = ["make" if killed == "make" else "dvc", "repro"]
    with (tmp_path / "output.txt").open("w") as output:
        first = subprocess.Popen(command, cwd=project, env=ENV, stdout=output, stderr=output)
    try:
        until((project / file).exists, 60)
        # The shell that dvc starts may stay, and its command holds the same words.
        until(
            lambda: sum(words in line for line in running(project).values() if " -c python " not in line) == count, 60
        )
        of_a_stage = (pid for pid, line in running(project).items() if line.startswith("python -m pipeline busy"))
        os.kill(min(of_a_stage) if killed == "stage" else first.pid, number)
        first.wait(10)
        until(lambda: not running(project), 10)
    finally:
        for pid in running(project):
            os.kill(pid, signal.SIGKILL)


def running(project):
    """The processes at work in a project's folder: their numbers and command lines."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended, or is of another user
            if (path / "cwd").resolve(strict=True) == project.resolve():
                found[int(path.name)] = (path / "cmdline").read_text().replace("\0", " ").strip()
    return found


def until(condition, seconds):
    """Wait until the condition holds; AssertionError after so many seconds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.2)
