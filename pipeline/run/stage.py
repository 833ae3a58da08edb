"""Start and end of every stage: arguments, messages, exit code, provenance record."""

import difflib
import errno
import gc
import importlib
import inspect
import json
import os
import platform
import signal
import sys
import threading
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from bla.base.errors import BlaError
from bla.runtime.memory import keep_freed_memory, too_little_memory
from pipeline.run.environment import (
    WORK,
    after_interrupt,
    choose_device,
    hint_for_temporary_copy,
    wanted_device,
)
from pipeline.run.progress import PROVENANCE, progress

MORE_MEMORY = "close other programs, or set `images_in_memory` in the dataset's `training`, and run again"
STAGES = sorted(path.stem for path in (Path(__file__).parents[1] / "stages").glob("[!_]*.py"))


def run_by_name(words: list[str]) -> None:
    """Run the stage named by the first word, with the other words as arguments, and exit (see `run_stage`)."""

    def main() -> Callable[..., None]:
        if not words:
            raise BlaError(f"usage: python -m pipeline STAGE [ARGUMENT ...]; the stages are {', '.join(STAGES)}")
        if words[0] not in STAGES:
            near = difflib.get_close_matches(words[0], STAGES, 1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(STAGES)}"
            raise BlaError(f"there is no such stage; {hint}")
        main: Callable[..., None] = importlib.import_module(f"pipeline.stages.{words[0]}").main
        return main

    run_stage(main, words[0] if words else "pipeline", _arguments(words[1:]))


def _arguments(words: list[str]) -> list[str]:
    """The arguments, or the values of `--dataset NAME --variant NAME`, which DVC passes for an item of a matrix."""
    return words[1::2] if words and words[0].startswith("--") else words


def run_stage(load: Callable[[], Callable[..., None]], name: str, words: list[str]) -> None:
    """Load a stage's function, call it with the words, and exit.

    Exit codes: 0, done; 1, a message says what is wrong and how to fix it; 130, interrupted. Existing outputs are
    replaced only when the new ones are complete. A bug shows its traceback.
    """
    started = time.perf_counter()
    keep_freed_memory()
    end_with_dvc()
    try:
        main = load()
        gc.freeze()  # keeps imported objects out of garbage collection, which would take one or two seconds at exit
        gc.enable()
        signature = inspect.signature(main)
        try:
            signature.bind(*words)
        except TypeError as error:
            expected = " ".join(map(str, signature.parameters)).upper()
            raise BlaError(f"usage: python -m pipeline {name} {expected}") from error
        wanted_device()
        if place := progress(name, words):
            print(place, flush=True)
        main(*words)
        _record(name, words, time.perf_counter() - started)
    except BlaError as error:
        sys.exit(_message(name, words, str(error)))
    except FileNotFoundError as error:
        missing = error.filename or str(error).partition(": ")[2] or error
        sys.exit(_message(name, words, f"{missing}: no such file; run make repro to create it"))
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        full = error.errno in (errno.EFBIG, errno.ENOSPC, errno.EDQUOT)
        remedy = "free some space and run again" if full else "fix this and run again"
        remedy = MORE_MEMORY if too_little_memory(error) else remedy
        sys.exit(_message(name, words, f"{where}{error.strerror or error}; {remedy}"))
    except SafetensorError as error:  # a full disk included
        text = f"a .safetensors file cannot be read or written ({error}); free some space, or delete a damaged file"
        sys.exit(_message(name, words, f"{text}, and run again"))
    except (MemoryError, RuntimeError, ImportError) as error:
        if not (memory := too_little_memory(error)):
            raise
        sys.exit(_message(name, words, f"too little memory ({memory}); {MORE_MEMORY}"))
    except KeyboardInterrupt:
        print(_message(name, words, f"interrupted; {after_interrupt()}"), file=sys.stderr)
        sys.exit(130)


def end_with_dvc() -> None:
    """End this process within seconds of the `dvc` that started it, which may be killed and cannot tell it (Linux)."""
    chain, pid = [], os.getpid()
    for _ in range(3):  # dvc starts a shell, which may start the stage
        pid = _parent_of(pid)
        chain.append(pid)
        if b"dvc" in _read(Path(f"/proc/{pid}/cmdline")):
            threading.Thread(target=_watch, args=(chain,), daemon=True).start()
            return


def _watch(chain: list[int]) -> None:
    while [_parent_of(pid) for pid in (os.getpid(), *chain[:-1])] == chain:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)


def _parent_of(pid: int) -> int:
    """The parent of a process; 0 if there is none, or no /proc."""
    words = _read(Path(f"/proc/{pid}/stat")).rpartition(b")")[2].split()
    return int(words[1]) if len(words) > 1 else 0


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _message(name: str, words: list[str], text: str) -> str:
    return f"error in {' '.join([name, *words])}: {text}{hint_for_temporary_copy(text)}"


def _record(name: str, words: list[str], seconds: float) -> None:
    """Append a record to .work/provenance.jsonl: stage, duration, machine, versions and device."""
    record: dict[str, Any] = {"stage": name, "arguments": words, "seconds": round(seconds, 2)}
    record |= {"finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "machine": platform.machine(), "cores": os.cpu_count()}
    record |= {"python": platform.python_version(), "numpy": version("numpy"), "torch": version("torch")}
    if torch := sys.modules.get("torch"):
        device = choose_device()
        # Channels last, batch normalisation folded; see benchmarks/notes.md for what else was measured.
        precision = "float16" if device.type == "cuda" else "float32"
        record |= {"device": str(device), "threads": torch.get_num_threads(), "forward_passes": precision}
    WORK.mkdir(exist_ok=True)
    with PROVENANCE.open("a") as file:
        file.write(json.dumps(record) + "\n")
