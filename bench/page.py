"""The page of `univert serve`, in a real browser: how soon an upload is answered, and how much there is to load.

    python bench/page.py MODEL INDEX PHOTOS [--visits 30]

Every visit is a new browser profile that opens the page and uploads one of the files in PHOTOS. Measured in the page
are the milliseconds from the choice of the photo to the results, and to the pictures of the first eight of them; beside
it, in the same run, the same photos go to `POST /search` over an open connection, which no page can beat. Needs
Chromium on the PATH or in UNIVERT_CHROMIUM. Writes bench/results/page.md; exit 1 beyond the limits.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import sys
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, sync_playwright

from common import commit, cpu_name
from serving import load, service
from univert.core.files import write_atomic

RESULT = Path(__file__).parent / "results" / "page.md"
LIMITS = {"results_ms": 300.0, "weight_kb": 150.0}
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WEIGHT = """() => [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")]
  .reduce((sum, one) => sum + one.decodedBodySize, 0)"""
TIMES = """async () => {
  const mark = (name) => performance.getEntriesByName(name).at(-1)?.startTime;
  const until = async (found) => { while (!found()) await new Promise(requestAnimationFrame); };
  await until(() => mark("univert:results"));
  const pictures = () => [...document.querySelectorAll("#grid img")].slice(0, 8);
  await until(() => pictures().every((one) => one.complete));
  const all = performance.now();
  return { results: mark("univert:results") - mark("univert:photo"), pictures: all - mark("univert:photo") };
}"""


def visit(browser: Browser, url: str, photo: Path) -> dict[str, float]:
    """One visitor with one photo: milliseconds, and bytes of the page itself."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    page.goto(url, wait_until="networkidle")
    weight: float = page.evaluate(WEIGHT)
    page.locator("input[type=file]").first.set_input_files(photo)
    times: dict[str, float] = page.evaluate(TIMES)
    context.close()
    return {**times, "weight": weight}


def measure(options: argparse.Namespace, path: str) -> tuple[list[dict[str, float]], dict[str, Any]]:
    """The figures of each visit, and those of one client without a page."""
    photos = sorted(options.photos.iterdir())
    with service(options.model, options.index) as (port, _), sync_playwright() as playwright:
        bare = load(port, 1, 5, options.photos)
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        url = f"http://127.0.0.1:{port}/"
        visit(browser, url, photos[0])
        found = [visit(browser, url, photos[number % len(photos)]) for number in range(1, options.visits + 1)]
        browser.close()
    return found, bare


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("index", type=Path)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--visits", type=int, default=30)
    options = parser.parse_args()
    named = os.environ.get("UNIVERT_CHROMIUM")
    path = named or next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        parser.error("no Chromium: install it (Debian: apt-get install chromium) or name it in UNIVERT_CHROMIUM")
    found, bare = measure(options, path)

    def figure(name: str) -> tuple[float, float]:
        values = sorted(one[name] for one in found)
        return statistics.median(values), values[int(0.95 * (len(values) - 1))]

    results, pictures, weight = figure("results"), figure("pictures"), figure("weight")[0] / 1000
    lines = [
        "# The page",
        "",
        f"{options.visits} visits, each a new browser profile; {bare['answers']} searches without a page.",
        "",
        "| what | median | 95% | to hold |",
        "|---|---|---|---|",
        f"| first results after the photo was chosen | {results[0]:.0f} ms | {results[1]:.0f} ms | "
        f"<= {LIMITS['results_ms']:.0f} ms |",
        f"| pictures of the first eight | {pictures[0]:.0f} ms | {pictures[1]:.0f} ms | |",
        f"| `POST /search` alone | {statistics.median(bare['latencies_ms']):.0f} ms | "
        f"{bare['latencies_ms'][int(0.95 * (bare['answers'] - 1))]:.0f} ms | |",
        f"| all files of the page, uncompressed | {weight:.0f} kB | | <= {LIMITS['weight_kb']:.0f} kB |",
        "",
        f"Machine: {cpu_name()}, {os.cpu_count()} cores; Python {platform.python_version()}; "
        f"commit {commit('src', 'bench/page.py')}.",
        "",
        f"Made by `python bench/page.py MODEL INDEX PHOTOS --visits {options.visits}`.",
        "",
    ]
    print("\n".join(lines))
    write_atomic(RESULT, "\n".join(lines))
    return 0 if results[0] <= LIMITS["results_ms"] and weight <= LIMITS["weight_kb"] else 1


if __name__ == "__main__":
    sys.exit(main())
