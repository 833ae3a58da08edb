"""A page in headless Chromium, driven over the DevTools protocol through two pipes: no network, no further package.

with open_page(path, "method=cam", width=390) as page:
    page.press("Enter")
    assert page.evaluate("dialog.open")

Tests are skipped, with a reason, where no Chromium is installed.
"""

import itertools
import json
import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
PATIENCE = 60
"""Seconds to wait for an answer; a full machine starts Chromium slowly."""
CODES = {
    "ArrowRight": 39,
    "ArrowLeft": 37,
    "ArrowDown": 40,
    "ArrowUp": 38,
    "Enter": 13,
    "Escape": 27,
    "Home": 36,
    "End": 35,
    " ": 32,
}


class Page:
    """One page: `evaluate` runs JavaScript in it, `press` a key as a person does."""

    def __init__(self, process: "subprocess.Popen[bytes]", to_browser: int, from_browser: int) -> None:
        self.process, self.to_browser, self.from_browser = process, to_browser, from_browser
        self.numbers, self.session, self.received = itertools.count(1), {}, b""
        self.requested: list[str] = []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self.session = {"sessionId": self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]}
        self.send("Page.enable")
        self.send("Network.enable")

    def send(self, method: str, **parameters: Any) -> Any:
        """The result of a command of the protocol."""
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": parameters, **self.session}
        os.write(self.to_browser, json.dumps(message).encode() + b"\0")
        while (answer := self._receive()).get("id") != number:
            pass
        assert "error" not in answer, answer
        return answer["result"]

    def open(self, address: str) -> None:
        """Open an address and wait until its scripts have run."""
        self.send("Page.navigate", url="about:blank")
        self.send("Page.navigate", url=address)
        self.wait("location.protocol === 'file:' && document.readyState === 'complete'")

    def reload(self) -> None:
        """Load the page again and wait until its scripts have run."""
        self.evaluate("window.before = true")
        self.send("Page.reload")
        self.wait("!window.before && document.readyState === 'complete'")

    def requests(self) -> list[str]:
        """The addresses that were asked for, without those that hold their data."""
        return [address for address in self.requested if not address.startswith(("about:", "blob:", "data:"))]

    def save_downloads(self, folder: Path) -> None:
        """Save what the page downloads in this folder."""
        self.send("Page.setDownloadBehavior", behavior="allow", downloadPath=str(folder))

    def evaluate(self, script: str) -> Any:
        """The value of an expression in the page, awaited."""
        result = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def wait(self, condition: str) -> None:
        """Wait until a condition in the page holds."""
        end = time.monotonic() + PATIENCE
        while not self.evaluate(condition):
            assert time.monotonic() < end, condition
            time.sleep(0.02)

    def press(self, *keys: str) -> None:
        """Press and release keys one after the other."""
        for key in keys:
            text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
            values = {"key": key, "windowsVirtualKeyCode": CODES.get(key, ord(key[0])), "text": text}
            self.send("Input.dispatchKeyEvent", type="keyDown", **values)
            self.send("Input.dispatchKeyEvent", type="keyUp", **values | {"text": ""})

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self.received:
            assert select.select([self.from_browser], [], [], PATIENCE)[0], "Chromium does not answer"
            part = os.read(self.from_browser, 1 << 20)
            assert part, "Chromium has ended"
            self.received += part
        line, _, self.received = self.received.partition(b"\0")
        answer: dict[str, Any] = json.loads(line)
        if answer.get("method") == "Network.requestWillBeSent":
            self.requested.append(answer["params"]["request"]["url"])
        return answer


@contextmanager
def open_page(path: Path, state: str = "", width: int = 1280, height: int = 900, dark: bool = False) -> Iterator[Page]:
    """The page of a file, in a window of this size, with `state` after the # of its address."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip("no Chromium is installed (apt install chromium)")
    (read_here, write_there), (read_there, write_here) = os.pipe(), os.pipe()

    def pipes_as_three_and_four() -> None:
        there = os.dup(read_there), os.dup(write_there)  # the pipes may be 3 and 4 in the other order
        os.dup2(there[0], 3)
        os.dup2(there[1], 4)

    with TemporaryDirectory() as profile:
        command = [program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
        command += ["--disable-background-networking", "--remote-debugging-pipe", f"--user-data-dir={profile}"]
        process = subprocess.Popen(
            command,
            close_fds=False,
            preexec_fn=pipes_as_three_and_four,
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(read_there)
        os.close(write_there)
        try:
            page = Page(process, write_here, read_here)
            phone = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
            page.send("Emulation.setDeviceMetricsOverride", **phone)
            scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
            page.send("Emulation.setEmulatedMedia", features=[scheme])
            page.open(f"{path.as_uri()}#{state}" if state else path.as_uri())
            yield page
        finally:
            process.terminate()
            process.wait(PATIENCE)
            with suppress(
                ProcessLookupError
            ):  # its helpers may live on, and write into the folder that is removed next
                os.killpg(process.pid, signal.SIGKILL)
            os.close(read_here)
            os.close(write_here)
