"""The rating page in a real browser: how soon after the last key the next triplet is in sight.

    python bench/rating.py TRIPLETS CATALOGUE [--triplets 100]

Serves the triplets with `univert rate` into a folder that is thrown away, and rates with keys 1 and 1. Measured in the
page, in milliseconds, are the time from the second key to the frame in which all three pictures of the next triplet are
drawn, and, beside it, how long an answer takes to be on the disk (`POST /answers`, which also brings the next
triplets). A rater thinks between two keys: `--thinking-ms` at the least. Needs Chromium on the PATH or in
UNIVERT_CHROMIUM. Writes bench/results/rating.md; exit 1 beyond the limit.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from common import commit, cpu_name
from univert.core.files import write_atomic
from univert.serving.server import free_port

RESULT = Path(__file__).parent / "results" / "rating.md"
LIMIT_MS = 100.0
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
NEXT_MS = """async () => {
  const last = () => performance.getEntriesByName("univert:answered").at(-1).startTime;
  const drawn = () => performance.getEntriesByName("univert:shown").at(-1);
  while (drawn().startTime < last()) await new Promise(requestAnimationFrame);
  return drawn().startTime - last();
}"""
ANSWERS_MS = """() => performance.getEntriesByType("resource")
  .filter(({ name }) => name.endsWith("/answers")).map(({ duration }) => duration)"""


def rate(page: Page, triplets: int, thinking_ms: int) -> tuple[list[float], list[float]]:
    """Milliseconds to the next triplet, and of each answer."""
    times: list[float] = []
    for _ in range(triplets):
        page.wait_for_timeout(thinking_ms)
        page.keyboard.press("1")
        page.keyboard.press("1")
        times.append(page.evaluate(NEXT_MS))
    page.wait_for_timeout(500)
    return sorted(times), sorted(page.evaluate(ANSWERS_MS))


def measure(options: argparse.Namespace, browser_path: str) -> tuple[list[float], list[float]]:
    """Serve, and rate in a browser."""
    port = free_port("127.0.0.1", 0)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        command = [sys.executable, "-c", "import univert.cli; univert.cli.main()", "rate"]
        given = [options.triplets_file, options.catalogue, "--out", f"{folder}/ratings", "--port", port]
        server = subprocess.Popen([*command, *map(str, given)], stdout=subprocess.DEVNULL)
        try:
            browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            for _ in range(600):
                try:
                    page.goto(f"http://127.0.0.1:{port}/")
                    break
                except Exception:
                    page.wait_for_timeout(200)
            page.fill("#rater", "bench")
            page.keyboard.press("Enter")
            page.wait_for_selector("#rate:not([hidden])")
            rate(page, 5, options.thinking_ms)
            found = rate(page, options.triplets, options.thinking_ms)
            browser.close()
        finally:
            server.terminate()
            server.wait()
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("triplets_file", type=Path, metavar="TRIPLETS")
    parser.add_argument("catalogue", type=Path, metavar="CATALOGUE")
    parser.add_argument("--triplets", type=int, default=100)
    parser.add_argument("--thinking-ms", type=int, default=300)
    options = parser.parse_args()
    named = os.environ.get("UNIVERT_CHROMIUM")
    path = named or next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        parser.error("no Chromium: install it (Debian: apt-get install chromium) or name it in UNIVERT_CHROMIUM")
    times, answers = measure(options, path)

    def row(what: str, values: list[float], limit: str) -> str:
        slow = values[int(0.95 * (len(values) - 1))]
        return f"| {what} | {statistics.median(values):.0f} ms | {slow:.0f} ms | {limit} |"

    lines = [
        "# Rating",
        "",
        f"{len(times)} triplets by one rater on loopback, {options.thinking_ms} ms between two triplets.",
        "",
        "| what | median | 95% | to hold |",
        "|---|---|---|---|",
        row("the next triplet in sight after the last key", times, f"<= {LIMIT_MS:.0f} ms"),
        row("an answer on the disk", answers, ""),
        "",
        f"Machine: {cpu_name()}, {os.cpu_count()} cores; Python {platform.python_version()}; "
        f"commit {commit('src', 'bench/rating.py')}.",
        "",
        f"Made by `python bench/rating.py TRIPLETS CATALOGUE --triplets {options.triplets}`.",
        "",
    ]
    print("\n".join(lines))
    write_atomic(RESULT, "\n".join(lines))
    return 0 if times[int(0.95 * (len(times) - 1))] <= LIMIT_MS else 1


if __name__ == "__main__":
    sys.exit(main())
