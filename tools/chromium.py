"""A headless Chromium driven over its DevTools protocol, with nothing installed but the browser itself."""
from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path

from launcher.base_directory import BaseDirectory
from launcher.websocket import TEXT, WebSocket

PATIENCE = 400  # seconds; a browser without a graphics card on a machine that does other things
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge", "microsoft-edge")


def find_browser() -> str | None:
    """$CHROMIUM, else the first browser on the path that speaks the protocol; None when there is none."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, _NAMES)), None)


class _Socket(WebSocket):
    """The launcher's client, which may also send long texts."""

    def send(self, text: str):
        data, mask = text.encode(), os.urandom(4)
        size = len(data)
        head = bytes([0x80 | TEXT, 0x80 | size]) if size < 126 else bytes([0x80 | TEXT, 0x80 | 127]) + size.to_bytes(8, "big")
        repeated = (mask * (size // 4 + 1))[:size]
        masked = (int.from_bytes(data, "big") ^ int.from_bytes(repeated, "big")).to_bytes(size, "big")
        self._socket.sendall(head + mask + masked)


class Page:
    """One tab. Use it in a ``with`` statement."""

    def __init__(self, browser: str, folder: Path, size: tuple[int, int] = (1500, 1000)):
        """Args: folder: of the browser's profile."""
        self.errors: list[str] = []  # uncaught exceptions, console errors and failed requests, with the address they come from
        folder.mkdir(parents=True, exist_ok=True)
        self._log = open(folder / "browser.log", "wb")
        self._process = subprocess.Popen(
            [browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--remote-debugging-port=0",
             f"--user-data-dir={folder}", f"--window-size={size[0]},{size[1]}", "about:blank"], stdout=self._log, stderr=self._log,
        )
        try:
            port = self._port(folder / "DevToolsActivePort")
            pages = json.load(urllib.request.urlopen(f"http://127.0.0.1:{port}/json", timeout=30))
            address = next(page["webSocketDebuggerUrl"] for page in pages if page["type"] == "page")
            self._socket = _Socket("127.0.0.1", port, "/" + address.split("/", 3)[3])
            self._number = 0
            for domain in ("Page", "Runtime", "Log"):
                self.call(f"{domain}.enable")
            self.call("Emulation.setDeviceMetricsOverride", width=size[0], height=size[1], deviceScaleFactor=1, mobile=False)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Page":
        return self

    def __exit__(self, *exception):
        self.close()

    def close(self):
        """End the browser."""
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def _port(self, file: Path) -> int:
        """Where the browser listens; it writes the file once it does."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self._process.poll() is None:
            if file.is_file() and (lines := file.read_text().split()):
                return int(lines[0])
            time.sleep(0.1)
        raise RuntimeError(f"The browser did not start; what it said is in {file.parent / 'browser.log'}.")

    def call(self, method: str, **arguments):
        """One call of the DevTools protocol; returns its result."""
        self._number += 1
        number = self._number
        self._socket.send(json.dumps({"id": number, "method": method, "params": arguments}))
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            message = self._socket.receive(5)
            if message is None:
                continue
            message = json.loads(message)
            if message.get("id") == number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                return message["result"]
            self._note(message)
        raise TimeoutError(f"The browser did not answer {method}.")

    def _note(self, message: dict):
        method, given = message.get("method"), message.get("params", {})
        if method == "Runtime.exceptionThrown":
            details = given["exceptionDetails"]
            self.errors.append(f"{details.get('url', '')} {details.get('exception', {}).get('description', details['text'])}")
        elif method == "Runtime.consoleAPICalled" and given["type"] == "error":
            frames = given.get("stackTrace", {}).get("callFrames", [])
            said = " ".join(str(part.get("value", part.get("description", ""))) for part in given["args"])
            self.errors.append(f"{' '.join(frame['url'] for frame in frames)} {said}")
        elif method == "Log.entryAdded" and given["entry"]["level"] == "error":
            self.errors.append(f"{given['entry'].get('url', '')} {given['entry']['text']}")

    def run(self, script: str, *arguments):
        """The value of an async function body that reads ``arguments`` as a[0], a[1] …; its exceptions are raised here."""
        found = self.call("Runtime.evaluate", expression=f"(async (a) => {{ {script} }})({json.dumps(arguments)})", awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in found:
            raise RuntimeError(found["exceptionDetails"].get("exception", {}).get("description", str(found["exceptionDetails"])))
        return found["result"].get("value")

    def wait(self, script: str, *arguments, timeout: float = PATIENCE):
        """The value of a script as soon as it is true; a TimeoutError with the script otherwise."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            try:
                if value := self.run(script, *arguments):
                    return value
            except RuntimeError:
                pass  # the page is still being made
            time.sleep(0.2)
        raise TimeoutError(f"In {timeout:.0f} seconds this did not become true in the page: {script}")

    def open(self, address: str):
        """Go to an address."""
        self.call("Page.navigate", url=address)

    def click(self, x: float, y: float):
        """A real click, as a mouse makes it."""
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="none" if kind == "mouseMoved" else "left", clickCount=1)

    def picture(self, box: tuple[float, float, float, float] | None = None) -> bytes:
        """The page as a PNG, or only a part of it: left, top, width, height."""
        clip = {} if box is None else {"clip": {**dict(zip(("x", "y", "width", "height"), box)), "scale": 1}}
        return base64.b64decode(self.call("Page.captureScreenshot", format="png", **clip)["data"])

    def screenshot(self, path: Path):
        """Write the page as a PNG."""
        path.write_bytes(self.picture())


def skip_the_tour(base: BaseDirectory):
    """Settings of somebody who has used this ComfyUI before, in English; else a window of templates covers the canvas."""
    settings = base.root / "user" / "default" / "comfy.settings.json"
    settings.parent.mkdir(parents=True, exist_ok=True)
    settings.write_text('{"Comfy.TutorialCompleted": true, "Comfy.Locale": "en"}', encoding="utf-8")


def show_canvas(page: Page, address: str):
    """Open a ComfyUI and wait until its canvas knows our nodes."""
    page.open(address)
    page.wait("return Boolean(window.app?.graph && window.LiteGraph?.registered_node_types?.IDEA_TrainIDEA)", timeout=PATIENCE)
    page.wait("return document.readyState === 'complete' && !document.querySelector('.p-progress-spinner')", timeout=PATIENCE)
