"""Asking with words: the field, links, what is not known, and where there is no field."""

import shutil
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.browser import shop
from tests.browser.conftest import NewVisitor
from tests.browser.driving import Visitor
from tests.browser.test_access import problems
from tests.serving.http.processes import ServerProcess, serving, wait_until


@pytest.fixture(autouse=True, scope="module")
def warm(service: ServerProcess) -> None:
    """What finds by words is loaded: on a busy machine that takes longer than the page asks again."""
    wait_until(lambda: service.search(text="lamp").status == 200, 120)


def ask(visitor: Visitor, words: str) -> list[str]:
    field = visitor.page.get_by_role("searchbox", name="Search by words").locator("visible=true")
    field.fill(words)
    field.press("Enter")
    visitor.page.wait_for_function("(words) => document.title.startsWith(words)", arg=words)
    return visitor.found()


def test_words_find_what_is_called_so(visitor: Visitor) -> None:
    page = visitor.open()
    expect(page.locator("#by-words input")).to_be_visible(timeout=10_000)
    visitor.snap("words-start")
    assert problems(visitor) == []
    found = ask(visitor, "golden lamp")
    assert set(found[:4]) == {shop.item_id(1, 1, copy) for copy in range(4)}
    assert page.evaluate("document.activeElement.id") == "query-title"
    assert page.locator("#query-title").text_content() == "“golden lamp”"
    assert page.locator("#results-title").text_content() == "24 images"
    assert page.locator("#identity").is_hidden()
    assert page.locator("#grid .bar").count() == 0, "no share is calibrated for words"
    visitor.snap("words-results")
    assert problems(visitor) == []

    assert set(ask(visitor, "goldne lamp xyzzy")[:4]) == set(found[:4])
    told = "Searched for “golden lamp xyzzy”. Not known here: “xyzzy”."
    assert page.locator("#stage .note").text_content() == told
    assert page.locator("#spoken").text_content() == f"24 results. {told}"

    page.locator("[data-facet=vertical]").click()
    page.get_by_role("checkbox", name="shoes").check()
    page.keyboard.press("Escape")
    expect(page.locator("#results-title")).to_have_text("24 images")
    page.wait_for_function(
        "() => [...document.querySelectorAll('#grid a')].every((a) => a.dataset.like.startsWith('shoes'))"
    )
    link = page.url
    assert "text=goldne+lamp+xyzzy" in link
    page.locator("#grid a").first.click()
    page.wait_for_selector(".of-item .facts .id")
    page.go_back()
    assert visitor.found()
    page.goto("about:blank")
    page.goto(link)
    assert visitor.found()[0].startswith("shoes")


def test_words_steer_a_photo(visitor: Visitor) -> None:
    page = visitor.open()
    visitor.upload(shop.photo(1, 1))
    visitor.settled()
    assert visitor.found()[0] == shop.item_id(1, 1, 0)
    assert page.locator("#identity").is_visible()
    field = page.get_by_role("searchbox", name="Search by words").locator("visible=true")
    field.fill("striped lamp")
    field.press("Enter")
    page.wait_for_function("() => document.title.startsWith('striped lamp')")
    assert set(visitor.found()[:8]) == {shop.item_id(1, product, copy) for product in (0, 1) for copy in range(4)}
    assert page.locator(".photo img").is_visible()
    assert page.locator("#identity").is_hidden()
    visitor.snap("words-and-photo")
    assert problems(visitor) == []
    page.locator("#grid a").first.click()
    page.wait_for_selector(".about .id")
    page.locator("#back").click()
    page.wait_for_function("() => document.title.startsWith('striped lamp')")
    field.fill("")
    field.press("Enter")
    page.wait_for_function("() => document.title.startsWith('lamps 1')")
    assert visitor.found()[0] == shop.item_id(1, 1, 0)


def test_words_on_a_phone(phone: Visitor) -> None:
    page = phone.open()
    page.locator("#by-words input").wait_for(timeout=10_000)
    phone.snap("phone-words-start")
    assert ask(phone, "tiny shoe")[0].startswith("shoes/näme 2")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    first = page.locator("#grid a").first.bounding_box()
    assert first is not None
    assert first["y"] + first["height"] <= 844, "the first result is in sight without scrolling"
    phone.snap("phone-words-results")
    assert problems(phone) == []
    phone.upload(shop.photo(1, 1))
    phone.settled()
    phone.snap("phone-words-photo")
    assert page.locator("#stage .by-words").is_visible()


def test_without_names_there_is_no_field(new_visitor: NewVisitor, stock: tuple[Path, Path], tmp_path: Path) -> None:
    shutil.copytree(stock[1], tmp_path / "index")
    shutil.rmtree(tmp_path / "index" / "text-search")
    with serving(stock[0], tmp_path / "index", engine="onnx", drain_s=0) as process:
        visitor = new_visitor(process.url)
        page = visitor.open()
        page.wait_for_function("() => document.getElementById('scope').textContent.includes('images')")
        assert page.locator("#by-words").is_hidden()
        visitor.expected = ["status of 400"]
        page.goto(f"{process.url}/?text=lamp")
        page.get_by_role("heading", name="Words don't work here").wait_for()
