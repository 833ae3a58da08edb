"""Run a command, and let its stages start without importing anything: `python -m pipeline.run.warm dvc repro`.

To import torch, timm and matplotlib takes as long as many a stage does. A server beside the command imports them once,
while the first stage runs; `python -m pipeline.STAGE` hands its arguments, environment, folder and terminal over to a fork
of the server, and ends with the fork's exit code. What a stage writes and says is the same without all this. On Linux alone:
elsewhere the system's own libraries do not survive a fork.
"""

import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import shutil
import signal
import socket
import sys
import tempfile
from pathlib import Path

SERVER = "BLA_SERVER"
"""The environment variable that tells a stage the folder of the server's socket, and the root of the code that it serves."""
# None of these asks for a GPU when it is imported: a process that has cannot be forked for one that uses it.
IMPORTED = ("pandas", "pydantic", "safetensors.torch", "scipy.stats", "seaborn", "timm", "tqdm", "yaml")
PAUSE = 0.01
"""Seconds between two looks at whether a stage has ended."""


def main(root: str, command: list[str]) -> None:
    """Become the command, with a server beside it that ends when the command does."""
    if sys.platform == "linux":
        folder, server, this = Path(tempfile.mkdtemp(prefix="bla-")), socket.socket(socket.AF_UNIX), os.getpid()
        with contextlib.chdir(folder):  # a socket's path must be short
            server.bind("socket")
        server.listen()
        if os.fork() == 0:
            _serve(server, this)
            shutil.rmtree(folder)
            return
        server.close()
        os.environ[SERVER] = f"{folder}:{root}"
    try:
        os.execvp(command[0], command)
    except (OSError, IndexError):
        sys.exit("usage: python -m pipeline.run.warm COMMAND [ARGUMENT ...]")


def hand_over(root: str) -> None:
    """If there is a server of this code, let it run what this process was started for, and exit as that does."""
    folder, _, served = os.environ.get(SERVER, "").partition(":")
    if served != root:
        return
    module, *words = sys.orig_argv[sys.orig_argv.index("-m") + 1 :]
    request = json.dumps([module, words, str(Path.cwd()), dict(os.environ)]).encode()
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            with contextlib.chdir(folder):
                connection.connect("socket")
        except OSError:  # the server is gone
            return
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the stage too, which says what to do then
        socket.send_fds(connection, [len(request).to_bytes(8)], [0, 1, 2])
        connection.sendall(request)
        code = connection.makefile().read()
    if not code:
        print(f"error in {module}: what ran it was killed; run again to continue", file=sys.stderr, flush=True)
    os._exit(int(code or 1))


def _serve(server: socket.socket, command: int) -> None:
    """Fork for every stage until the command is no longer this process' parent."""
    for ignored in (signal.SIGINT, signal.SIGCHLD):
        signal.signal(ignored, signal.SIG_IGN)
    gc.disable()
    while os.getppid() == command:
        if select.select([server], [], [], 0.2)[0]:
            connection, _ = server.accept()
            if os.fork() == 0:
                _attend(connection)
            connection.close()
            for name in IMPORTED:
                importlib.import_module(name)
            gc.freeze()


def _attend(connection: socket.socket) -> None:
    """Run a stage in one more process, and tell the client how that ends; end it if the client goes away."""
    size, terminal, _, _ = socket.recv_fds(connection, 8, 3)
    module, words, folder, environment = json.loads(connection.makefile().read(int.from_bytes(size)))
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    stage = os.fork()
    if stage == 0:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for place, descriptor in enumerate(terminal):
            os.dup2(descriptor, place)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        sys.argv = ["-m", *words]
        code = _run(module)
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)  # to take down all that is imported would take half a second
    while (ended := os.waitpid(stage, os.WNOHANG)) == (0, 0):
        if select.select([connection], [], [], PAUSE)[0]:
            os.kill(stage, signal.SIGTERM)
    code = os.waitstatus_to_exitcode(ended[1])
    connection.sendall(str(code if code >= 0 else 128 - code).encode())
    os._exit(0)


def _run(module: str) -> int:
    """Run a module as `python -m` does; return the exit code."""
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as stop:
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
            return 1
        return stop.code or 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
    return 0


if __name__ == "__main__":
    main(str(Path(__file__).resolve().parent.parent), sys.argv[1:])
