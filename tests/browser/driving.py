"""A real service process and a real browser, for the tests of the page."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.sync_api import BrowserContext, ConsoleMessage, Page

ROOT = Path(__file__).parents[2]
RUN = "from univert.cli import main; main()"
START_S = 120.0
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")

WATCH = """
addEventListener("securitypolicyviolation", (event) =>
  console.error(`policy violated: ${event.violatedDirective} ${event.blockedURI} ${event.sample}`));
"""


def chromium() -> str | None:
    """The browser to drive: UNIVERT_CHROMIUM, or what is on the PATH."""
    given = os.environ.get("UNIVERT_CHROMIUM")
    return given or next((path for name in NAMES if (path := shutil.which(name))), None)


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(kw_only=True)
class ServiceProcess:
    """`univert serve` as a process of its own."""

    model: Path
    index: Path
    log: Path
    settings: dict[str, Any] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it and wait until it is ready."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("UNIVERT_")}
        environment |= {f"UNIVERT_{name.upper()}": str(value) for name, value in self.settings.items()}
        command = ["-c", RUN, "serve", str(self.model), str(self.index), "--port", str(self.port)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([sys.executable, *command], env=environment, stdout=log, stderr=log)
        due = time.monotonic() + START_S
        while time.monotonic() < due and self.process.poll() is None:
            try:
                with urllib.request.urlopen(f"{self.url}/ready", timeout=5):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
        self.stop()
        raise AssertionError(f"the service did not start:\n{self.log.read_text()[-3000:]}")

    def stop(self) -> None:
        """End it, and see that it ends."""
        if self.process is None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def hold_requests(self, number: int) -> list[socket.socket]:
        """Keep requests in flight that never finish, so that the service is full; close the sockets to end it."""
        held = []
        for _ in range(number):
            connection = socket.create_connection(("127.0.0.1", self.port))
            connection.sendall(
                b"POST /search HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n"
                b"Content-Type: multipart/form-data; boundary=b\r\n\r\n--b\r\n"
            )
            held.append(connection)
        return held

    def get(self, path: str) -> Any:
        """JSON from the service."""
        with urllib.request.urlopen(self.url + path, timeout=10) as response:
            return json.load(response)


class Visitor:
    """A page in a browser, watched for errors: `expected` are patterns of console errors that belong to the test."""

    def __init__(self, context: BrowserContext, url: str, shots: Path) -> None:
        self.url = url
        self.shots = shots
        self.expected: list[str] = []
        self.heard: list[str] = []
        self.searches: list[str] = []
        context.add_init_script(WATCH)
        self.page: Page = context.new_page()
        self.page.set_default_timeout(10_000)
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.heard.append(f"uncaught: {error}"))
        self.page.on("request", lambda request: self._request(request.method, request.url))

    def open(self, path: str = "/") -> Page:
        """Go to an address of the service and wait for the page's first answer."""
        self.page.goto(self.url + path)
        self.page.wait_for_selector("#within:not([hidden]), #search:not([hidden])")
        return self.page

    def upload(self, content: bytes, name: str = "photo.png", kind: str = "image/png") -> None:
        """Choose a file."""
        self.page.set_input_files("#file", {"name": name, "mimeType": kind, "buffer": content})

    def found(self) -> list[str]:
        """The ids in the grid, once the answer is there."""
        self.settled()
        return [link.get_attribute("data-like") or "" for link in self.page.locator("#grid a").all()]

    def settled(self) -> None:
        """Wait until the grid shows the answer to the last question."""
        self.page.wait_for_selector("#grid:not([aria-busy]) a")

    def snap(self, name: str) -> None:
        """Keep a picture of what is to be seen."""
        self.page.screenshot(path=self.shots / f"{name}.png")

    def verify(self) -> None:
        """No error in the console, no violation of the policy, besides what the test expects."""
        unexpected = [line for line in self.heard if not any(re.search(pattern, line) for pattern in self.expected)]
        assert not unexpected, unexpected

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.heard.append(f"{message.type}: {message.text}")

    def _request(self, method: str, url: str) -> None:
        if method == "POST" and url.endswith("/search"):
            self.searches.append(url)
        if not url.startswith((self.url, "blob:", "data:")):
            self.heard.append(f"the page asked a stranger: {url}")
