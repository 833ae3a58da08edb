"""Stages that start warm: what they are told and answer, how they end, and when they are not handed over."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
STAGES = {
    "told": """
        import json, os, sys
        print(json.dumps([sys.argv, os.getcwd(), os.environ.get("TOLD"), sys.stdin.read(), os.getppid()]))
        print("and this is an error", file=sys.stderr)
    """,
    "ends": """
        import os, signal, sys
        how = sys.argv[1]
        if how == "message": sys.exit("error: so it is")
        if how == "number": sys.exit(3)
        if how == "bug": raise ValueError("a bug")
        if how == "killed": os.kill(os.getpid(), signal.SIGKILL)
    """,
    "waits": """
        import os, time
        from pathlib import Path
        Path("parent").write_text(str(os.getppid()))
        Path("process").write_text(str(os.getpid()))
        try:
            time.sleep(60)
        except KeyboardInterrupt:
            raise SystemExit(130)
    """,
}


@pytest.fixture
def tree(tmp_path):
    """A tree of its own with some small stages."""
    folder = tmp_path / "tree"
    (folder / "pipeline").mkdir(parents=True)
    for name in ("__init__", "warm"):
        shutil.copy(ROOT / f"pipeline/{name}.py", folder / "pipeline")
    for name, code in STAGES.items():
        lines = [line[8:] for line in code.splitlines()]
        (folder / f"pipeline/{name}.py").write_text("\n".join(lines))
    return folder


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", *words]


def run(tree: Path, *words: str, warm: bool = True, **options: object) -> "subprocess.CompletedProcess[str]":
    server = command("pipeline.run.warm") if warm else []
    return subprocess.run([*server, *words], cwd=tree, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload,no-any-return]


def test_a_stage_gets_arguments_folder_environment_and_terminal(tree):
    script = " && ".join([f"echo 'said to it' | TOLD=yes {sys.executable} -m pipeline.told one 'two three'"] * 2)
    done = run(tree, "sh", "-c", script)
    assert done.stderr == "and this is an error\n" * 2
    for line in done.stdout.splitlines():
        argv, folder, environment, given, parent = json.loads(line)
        assert argv == [str(tree / "pipeline/told.py"), "one", "two three"]
        assert (folder, environment, given) == (str(tree), "yes", "said to it\n")
        assert parent != os.getpid()


@pytest.mark.parametrize("how", ["well", "message", "number", "bug", "killed"])
def test_a_stage_ends_as_it_would_by_itself(tree, how):
    warm, cold = (run(tree, *command("pipeline.ends", how), warm=warm) for warm in (True, False))
    assert warm.returncode == {"well": 0, "message": 1, "number": 3, "bug": 1, "killed": 137}[how]
    assert warm.returncode == (cold.returncode if cold.returncode >= 0 else 128 - cold.returncode)
    assert warm.stderr.splitlines()[-1:] == cold.stderr.splitlines()[-1:]
    assert warm.stdout == cold.stdout


def wait_for(condition):
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < 60
        time.sleep(0.05)


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def waiting(tree: Path) -> tuple["subprocess.Popen[str]", int]:
    """A stage at work, and the number of its process."""
    words = [
        *command("pipeline.run.warm"),
        "sh",
        "-c",
        f"{sys.executable} -m pipeline.waits & echo $!; wait $!; exit $?",
    ]
    process = subprocess.Popen(words, cwd=tree, stdout=subprocess.PIPE, text=True, start_new_session=True)
    wait_for(lambda: (tree / "process").exists() and (tree / "process").read_text())
    return process, int((tree / "process").read_text())


def test_ctrl_c_reaches_the_stage(tree):
    words = [*command("pipeline.run.warm"), *command("pipeline.waits")]
    process = subprocess.Popen(words, cwd=tree, start_new_session=True)
    wait_for(lambda: (tree / "process").exists() and (tree / "process").read_text())
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(60) == 130


def test_a_stage_does_not_outlive_the_process_that_started_it(tree):
    process, stage = waiting(tree)
    assert process.stdout
    assert is_alive(stage)
    os.kill(int(process.stdout.readline()), signal.SIGKILL)
    wait_for(lambda: not is_alive(stage))
    assert process.wait(60) == 137


def test_a_stage_whose_end_nobody_tells_has_failed_and_says_so(tree):
    words = [*command("pipeline.run.warm"), *command("pipeline.waits")]
    process = subprocess.Popen(words, cwd=tree, stderr=subprocess.PIPE, text=True, start_new_session=True)
    wait_for(lambda: (tree / "process").exists() and (tree / "process").read_text())
    for name in ("parent", "process"):
        os.kill(int((tree / name).read_text()), signal.SIGKILL)
    assert process.wait(60) == 1
    assert process.stderr
    assert process.stderr.readline() == "error in pipeline.waits: what ran it was killed; run again to continue\n"


def test_the_server_ends_with_its_command_and_leaves_nothing(tree, tmp_path):
    folder = tmp_path / ("long" * 30)  # a socket's path may have 107 characters
    folder.mkdir()
    script = f"ls $TMPDIR; {sys.executable} -m pipeline.ends number"
    # torch makes a folder of its own when it is imported, in TMPDIR unless an import before told the environment of one.
    own = {"TMPDIR": str(folder), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "torch")}
    done = run(tree, "sh", "-c", script, env=os.environ | own)
    assert done.returncode == 3
    assert done.stdout.startswith("bla-")
    wait_for(lambda: not list(folder.iterdir()))


def test_a_stage_runs_by_itself_when_the_server_is_gone(tree, tmp_path):
    done = run(
        tree, *command("pipeline.ends", "number"), warm=False, env=os.environ | {"BLA_SERVER": f"{tmp_path}:{tree}"}
    )
    assert (done.returncode, done.stderr) == (3, "")


def test_a_stage_of_other_code_is_not_handed_over(tree, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(tree, other)
    done = run(tree, "sh", "-c", f"cd {other} && echo | {sys.executable} -m pipeline.told")
    argv, folder, _, _, _ = json.loads(done.stdout)
    assert argv == [str(other / "pipeline/told.py")]
    assert folder == str(other)


@pytest.mark.parametrize("words", [(), ("no-such-command",)])
def test_a_command_that_cannot_be_run_gets_one_message(tree, words):
    done = run(tree, *words)
    assert done.returncode == 1
    assert done.stderr == "usage: python -m pipeline.run.warm COMMAND [ARGUMENT ...]\n"


def test_what_the_server_imports_asks_for_no_gpu():
    script = """
import importlib, torch
def asked(*_): raise AssertionError("a GPU is asked for")
torch._C._cuda_getDeviceCount = torch._C._cuda_init = torch.cuda.is_available = torch.cuda.device_count = asked
from pipeline.run.warm import IMPORTED
for name in IMPORTED:
    importlib.import_module(name)
"""
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)
