"""Headless Chromium, driven over a pipe by its DevTools protocol, with the standard library alone.

with Chromium(folder) as browser:
    browser.open(page.as_uri())
    browser.run("document.title")
"""

import base64
import json
import os
import select
import shutil
import subprocess
import time

BINARY = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
MISSING = "Chromium is not installed (Debian: apt-get install chromium)"
SECONDS = 60
"""The longest wait for an answer of the browser."""


class Chromium:
    """A browser with one page; `folder` is its profile, with downloads in `folder/downloads`."""

    def __init__(self, folder, width=1280, height=900):
        self.folder, self.number, self.buffer, self.messages = folder, 0, b"", []
        self.downloads = folder / "downloads"
        self.downloads.mkdir(parents=True)
        read, self.write_to = os.pipe()
        self.read_from, write = os.pipe()
        options = [
            "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe",
            "--host-resolver-rules=MAP * ~NOTFOUND", "--no-first-run", f"--user-data-dir={folder / 'profile'}",
            f"--window-size={width},{height}", "about:blank",
        ]  # fmt: skip
        # The browser reads commands from descriptor 3 and writes answers to descriptor 4.
        self.process = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 3<&{read} 4>&{write}', "bash", BINARY, *options],
            pass_fds=(read, write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(read)
        os.close(write)
        (page,) = [t for t in self.call("Target.getTargets")["targetInfos"] if t["type"] == "page"]
        self.session = None
        self.session = self.call("Target.attachToTarget", targetId=page["targetId"], flatten=True)["sessionId"]
        self.call("Page.enable")
        self.call("Network.enable")
        self.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(self.downloads))
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500)  # fmt: skip

    session = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(timeout=SECONDS)
        os.close(self.write_to)
        os.close(self.read_from)

    def call(self, method, **parameters):
        """The result of a command of the DevTools protocol."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session and not method.startswith(("Target.", "Browser.")):
            message["sessionId"] = self.session
        os.write(self.write_to, json.dumps(message).encode() + b"\0")
        answer = self._wait(lambda m: m.get("id") == self.number)
        assert "error" not in answer, answer["error"]
        return answer["result"]

    def open(self, address):
        """Open an address and wait until it is loaded."""
        self.messages.clear()
        self.call("Page.navigate", url=address)
        self._loaded()

    def reload(self):
        """Reload the page and wait until it is loaded."""
        self.messages.clear()
        self.call("Page.reload")
        self._loaded()

    def run(self, code):
        """The value of a JavaScript expression."""
        result = self.call("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def screenshot(self, path):
        """Write the whole page as PNG."""
        result = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(result["data"]))

    def requests(self):
        """The addresses that the page asked for since it was opened, without those that hold their data."""
        found = [m["params"]["request"]["url"] for m in self.messages if m.get("method") == "Network.requestWillBeSent"]
        return [address for address in found if not address.startswith(("data:", "blob:"))]

    def _loaded(self):
        if not any(m.get("method") == "Page.loadEventFired" for m in self.messages):
            self._wait(lambda m: m.get("method") == "Page.loadEventFired")

    def _wait(self, wanted):
        """The first message for which `wanted` is true; the others are kept in `messages`."""
        end = time.monotonic() + SECONDS
        while True:
            while b"\0" in self.buffer:
                text, _, self.buffer = self.buffer.partition(b"\0")
                message = json.loads(text)
                self.messages.append(message)
                if wanted(message):
                    return message
            ready, _, _ = select.select([self.read_from], [], [], max(0, end - time.monotonic()))
            assert ready, f"Chromium does not answer within {SECONDS} s"
            part = os.read(self.read_from, 1 << 20)
            assert part, "Chromium has ended"
            self.buffer += part
