"""A real browser for tests of pages: headless Chromium, asked over a pipe. No port is opened and nothing is installed.

Only the process that was started here, with its children, is ended. Each call to the browser has a time limit.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--remote-debugging-pipe",
)
PLUG = """
import os, sys
for end, wanted in zip(map(int, sys.argv[1:3]), (3, 4)):
    os.dup2(end, wanted)
    os.close(end)
os.execvp(sys.argv[3], sys.argv[3:])
"""
"""Chromium reads commands from file descriptor 3 and writes answers to 4: a process that puts them there, and becomes
Chromium."""
LIMIT = 60.0
"""Seconds that one call may take; they are for a busy machine, a call takes milliseconds."""

OVERFLOWING = """
[...document.querySelectorAll("body *")]
  .filter(e => e.checkVisibility() && e.getBoundingClientRect().width > 1)
  .filter(e => e.getBoundingClientRect().right > innerWidth + 0.5 || e.scrollWidth > e.clientWidth + 1 && e.clientWidth)
  .map(e => `${e.tagName} ${e.textContent.trim().slice(0, 40)}`)
"""
"""What reaches beyond the window's right side, or holds more than fits its width."""
UNDRAWN = "[...document.images].filter(i => !i.complete || !i.naturalWidth).map(i => i.alt)"
"""The texts of images that were not decoded."""
FAINT = """
(() => {
  const rgba = colour => colour.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(c => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = e => {
    for (; e; e = e.parentElement) {
      const colour = rgba(getComputedStyle(e).backgroundColor);
      if (colour[3] !== 0) return colour;
    }
    return [255, 255, 255];
  };
  const contrast = e => {
    const [low, high] = [rgba(getComputedStyle(e).color), behind(e)].map(light).sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  };
  return [...document.querySelectorAll("body *")]
    .filter(e => [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()) && contrast(e) < 4.5)
    .map(e => `${contrast(e).toFixed(2)} ${e.tagName} ${e.textContent.trim().slice(0, 40)}`);
})()
"""
"""Texts with less contrast than WCAG 2.1 asks for (1.4.3, level AA)."""


class Page:
    """A page that the browser shows; everything it asked for over the network is in `requests`."""

    def __init__(self, browser: Browser, target: str, session: str) -> None:
        self._browser = browser
        self._target = target
        self._session = session
        self.requests: list[str] = []

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression, as JSON can hold it; a promise is waited for."""
        found = self._send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def resize(self, width: int, height: int = 900) -> None:
        """The window in CSS pixels."""
        self._send("Emulation.setScrollbarsHidden", hidden=True)
        self._send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def prefer(self, *, scheme: str = "light", medium: str = "screen") -> None:
        """A reader with a dark screen, or a printer."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self._send("Emulation.setEmulatedMedia", media=medium, features=features)

    def close(self) -> None:
        """As a visitor closes a tab."""
        self._browser.send("Target.closeTarget", targetId=self._target)

    def cut_off(self, offline: bool = True) -> None:
        """Without a network, as in a tunnel; or back in it."""
        self._send("Network.enable")
        self._send(
            "Network.emulateNetworkConditions", offline=offline, latency=0, downloadThroughput=-1, uploadThroughput=-1
        )

    def press_tab(self) -> None:
        """As a reader without a mouse does."""
        for kind in ("keyDown", "keyUp"):
            self._send("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)

    def screenshot(self, file: Path) -> None:
        """The whole page as a picture, for people."""
        shot = self._send("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(shot["data"]))

    def printed(self) -> bytes:
        """The page as PDF."""
        return base64.b64decode(self._send("Page.printToPDF", preferCSSPageSize=True)["data"])

    def open(self, address: str) -> None:
        """Load a page and wait until everything in it is loaded and its images are decoded."""
        for domain in ("Page", "Network"):
            self._send(f"{domain}.enable")
        self._browser.listeners[self._session] = self._heard
        shown = self._send("Page.navigate", url=address)
        assert "errorText" not in shown, shown
        self.run("new Promise(done => document.readyState == 'complete' ? done() : addEventListener('load', done))")
        self.run("Promise.all([...document.images].map(i => i.decode().catch(() => null))).then(() => null)")

    def _heard(self, event: dict[str, Any]) -> None:
        if event["method"] == "Network.requestWillBeSent":
            self.requests.append(event["params"]["request"]["url"])

    def _send(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self._browser.send(method, session=self._session, **parameters)


class Browser:
    """One process, spoken to by the DevTools protocol: JSON messages that end with a zero byte."""

    def __init__(self, process: subprocess.Popen[bytes], *, commands: int, answers: int) -> None:
        self._process = process
        self._commands = commands
        self._answers = answers
        self._heard = b""
        self._number = 0
        self.listeners: dict[str, Any] = {}

    def page(self, file: Path, *, width: int = 1280) -> Page:
        """Open a file from the disk in a window of its own."""
        return self.visit(file.resolve().as_uri(), width=width)

    def visit(self, address: str, *, width: int = 1280) -> Page:
        """Open any address in a window of its own."""
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, target, session)
        page.resize(width)
        page.open(address)
        return page

    def send(self, method: str, *, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """One call and its result; what the browser tells meanwhile goes to the listeners."""
        self._number += 1
        call = {"id": self._number, "method": method, "params": parameters}
        os.write(self._commands, json.dumps(call | ({"sessionId": session} if session else {})).encode() + b"\0")
        deadline = time.monotonic() + LIMIT
        while (answer := self._next(deadline)).get("id") != self._number:
            if "method" in answer and answer.get("sessionId") in self.listeners:
                self.listeners[answer["sessionId"]](answer)
        assert "error" not in answer, f"{method}: {answer['error']}"
        result: dict[str, Any] = answer["result"]
        return result

    def _next(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._heard:
            ready, _, _ = select.select([self._answers], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"Chromium has not answered for {LIMIT:.0f} s"
            piece = os.read(self._answers, 1 << 20)
            assert piece, f"Chromium ended with {self._process.poll()}"
            self._heard += piece
        message, _, self._heard = self._heard.partition(b"\0")
        heard: dict[str, Any] = json.loads(message)
        return heard


def found() -> str:
    """Chromium's path; skips the test where there is none."""
    for name in NAMES:
        if path := shutil.which(name):
            return path
    pytest.skip(f"no Chromium on the PATH (looked for {', '.join(NAMES)}): pages are not tried in a real browser")


@contextmanager
def browser() -> Iterator[Browser]:
    """A fresh headless Chromium with an empty profile; it ends with the block, whatever happens in it."""
    program = found()
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as profile:
        its_in, commands = _high(os.pipe())
        answers, its_out = _high(os.pipe())
        process = subprocess.Popen(
            [sys.executable, "-c", PLUG, f"{its_in}", f"{its_out}", program, *FLAGS, f"--user-data-dir={profile}"],
            pass_fds=(its_in, its_out),
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(its_in)
        os.close(its_out)
        try:
            yield Browser(process, commands=commands, answers=answers)
        finally:
            os.close(commands)
            os.close(answers)
            _end(process)


def _high(pipe: tuple[int, int]) -> tuple[int, int]:
    """The same pipe, out of the way of the numbers that Chromium wants."""
    reading, writing = (fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 20) for end in pipe)
    for end in pipe:
        os.close(end)
    return reading, writing


def _end(process: subprocess.Popen[bytes]) -> None:
    """Chromium ends when its pipe is closed; otherwise its own group of processes is killed."""
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def assert_readable(page: Page) -> None:
    """Nothing is cut off on a phone or a desk, and by day and by night every text has its contrast."""
    for width in (400, 1280):
        page.resize(width)
        assert page.run(OVERFLOWING) == []
        assert page.run("document.documentElement.scrollWidth") == width
    for scheme in ("light", "dark"):
        page.prefer(scheme=scheme)
        assert page.run(FAINT) == []
