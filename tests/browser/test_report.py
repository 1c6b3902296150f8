"""The report in a browser, for what only its layout shows."""

from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.report import made_up
from tests.report.test_page import catalogue_of, vectors_for
from univert.report.page import write_report

VERTICALS = ("appliances", "decoration", "electronics", *(f"vertical {number}" for number in range(12)))
TITLES = (
    "Untrained base network",
    "Specialists, one a vertical",
    "Specialists, one a group",
    "One joint triplet model",
    "One joint Proxy-NCA model",
    "Unified, plain",
    "Unified, aligned, labelled only",
    "Unified, aligned",
    "Unified, from 4 members",
    "Chosen: one joint Proxy-NCA model",
)


@pytest.mark.parametrize(("width", "whole"), [(1400, True), (390, False)])
def test_nothing_is_cut_on_a_desk_and_only_tables_scroll_on_a_phone(
    browser: Browser, tmp_path: Path, width: int, whole: bool
) -> None:
    catalogue = catalogue_of(tmp_path, [(name, name, None) for name in VERTICALS[:2] for _ in range(2)])
    rows = dict.fromkeys(VERTICALS, 0.555)
    models = [made_up.model(str(number), 0.5, rows, title=title) for number, title in enumerate(TITLES)]
    content = made_up.content(compared=tuple(models), comparisons=(), combination=made_up.combination(VERTICALS))
    write_report(tmp_path / "report.html", content, catalogue, {"Embeddings": vectors_for(catalogue)})
    page = browser.new_page(viewport={"width": width, "height": 800})
    page.goto((tmp_path / "report.html").as_uri())
    cut = page.evaluate(
        "[...document.querySelectorAll('.scroll')].filter((box) => box.checkVisibility() && "
        "box.scrollWidth > box.clientWidth).map((box) => box.ariaLabel)"
    )
    assert (cut == []) == whole
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.close()
