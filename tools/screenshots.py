"""Take the page's picture in the widths and colours that people have: python tools/screenshots.py URL PHOTO OUT.

Needs a running service (`univert serve`) and a Chromium on the PATH, or named in UNIVERT_CHROMIUM.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from itertools import product
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

SIZES_PX = {320: 640, 390: 844, 768: 1024, 1440: 900}
SCHEMES = ("light", "dark")
PHONE_PX = 700
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def main() -> int:
    """Start, results, a box, filters, an item: for each width, light and dark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", help="of a running service, such as http://127.0.0.1:8000")
    parser.add_argument("photo", type=Path, help="what to search with")
    parser.add_argument("out", type=Path, help="the folder to fill")
    parser.add_argument("--widths", type=int, nargs="+", default=list(SIZES_PX), choices=list(SIZES_PX))
    arguments = parser.parse_args()
    path = os.environ.get("UNIVERT_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        print("no Chromium on the PATH; name one in UNIVERT_CHROMIUM", file=sys.stderr)
        return 2
    arguments.out.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        for width_px, scheme in product(arguments.widths, SCHEMES):
            take_round(browser, arguments.url, arguments.photo, arguments.out, width_px, scheme)
        browser.close()
    print(f"{len(list(arguments.out.glob('*.png')))} pictures in {arguments.out}")
    return 0


def take_round(browser: Browser, url: str, photo: Path, out: Path, width_px: int, scheme: str) -> None:
    """One visit at one width, in one colour scheme."""
    phone = width_px < PHONE_PX
    context = browser.new_context(
        viewport={"width": width_px, "height": SIZES_PX[width_px]},
        color_scheme="dark" if scheme == "dark" else "light",
        reduced_motion="reduce",
        has_touch=phone,
        is_mobile=phone,
    )
    page = context.new_page()

    def take(name: str) -> None:
        page.screenshot(path=out / f"{name}-{width_px}-{scheme}.png")

    page.goto(url)
    page.wait_for_selector("#within:not([hidden])")
    take("1-start")
    page.set_input_files("#file", photo)
    settle(page)
    take("2-results")
    page.get_by_role("button", name="Search a part").click()
    page.wait_for_timeout(300)  # the pause before the box is asked about
    settle(page)
    take("3-box")
    page.locator("[data-facet=vertical]").click()
    take("4-filter")
    page.keyboard.press("Escape")
    page.locator("#grid a").nth(1).click()
    page.wait_for_selector(".facts .id")
    settle(page)
    take("5-item")
    context.close()


def settle(page: Page) -> None:
    """Wait for the answer and for the pictures that are in sight."""
    page.wait_for_selector("#grid:not([aria-busy]) a")
    page.wait_for_function("() => [...document.querySelectorAll('#grid img')].slice(0, 4).every((one) => one.complete)")


if __name__ == "__main__":
    sys.exit(main())
