"""A real service process and a real browser, for the tests of the page."""

import os
import re
import shutil
from pathlib import Path

from playwright.sync_api import BrowserContext, ConsoleMessage, Page

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")

WATCH = """
addEventListener("securitypolicyviolation", (event) =>
  console.error(`policy violated: ${event.violatedDirective} ${event.blockedURI} ${event.sample}`));
"""


def chromium() -> str | None:
    """The browser to drive: UNIVERT_CHROMIUM, or what is on the PATH."""
    given = os.environ.get("UNIVERT_CHROMIUM")
    return given or next((path for name in NAMES if (path := shutil.which(name))), None)


class Visitor:
    """A page in a browser, watched for errors: `expected` are patterns of console errors that belong to the test."""

    def __init__(self, context: BrowserContext, url: str, shots: Path | None) -> None:
        self.url = url
        self.shots = shots
        self.expected: list[str] = []
        self.heard: list[str] = []
        self.searches: list[str] = []
        context.add_init_script(WATCH)
        self.page: Page = context.new_page()
        self.page.set_default_timeout(10_000)
        assert self.page.viewport_size is not None
        self.viewport = self.page.viewport_size
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
        if self.shots is not None:
            self.page.screenshot(path=self.shots / f"{name}.png")

    def leave(self) -> None:
        """Empty the page. It met no error in the console, no violation of the policy, but what the test expects."""
        self.page.goto("about:blank")
        self.page.unroute_all(behavior="ignoreErrors")
        self.page.emulate_media(reduced_motion="reduce", forced_colors="none")
        self.page.set_viewport_size(self.viewport)
        unexpected = [line for line in self.heard if not any(re.search(pattern, line) for pattern in self.expected)]
        self.expected, self.heard, self.searches = [], [], []
        assert not unexpected, unexpected

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.heard.append(f"{message.type}: {message.text}")

    def _request(self, method: str, url: str) -> None:
        if method == "POST" and url.endswith("/search"):
            self.searches.append(url)
        if not url.startswith((self.url, "blob:", "data:")):
            self.heard.append(f"the page asked a stranger: {url}")
