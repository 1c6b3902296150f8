"""For everyone: axe-core, keyboard alone, screen readers, dark, still, narrow, and light to load."""

import json
from typing import Any
from urllib.parse import quote

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.browser import shop
from tests.browser.conftest import NewVisitor
from tests.browser.driving import Visitor

MOST_BYTES = 150_000
GRAVE = ("serious", "critical")


def problems(visitor: Visitor, rules: list[str] | None = None) -> list[str]:
    """What axe-core finds grave, by all its rules or by some."""
    options: dict[str, Any] = {"resultTypes": ["violations"]} | ({"runOnly": rules} if rules else {})
    found: list[dict[str, Any]] = Axe().run(visitor.page, options=options).response["violations"]
    return [f"{one['id']}: {node['html'][:120]}" for one in found if one["impact"] in GRAVE for node in one["nodes"]]


def go_round(visitor: Visitor, rules: list[str] | None = None) -> list[str]:
    """Visit every state and collect what axe finds in each."""
    page = visitor.open()
    found = problems(visitor, rules)
    visitor.upload(shop.scene(), "table.jpg", "image/jpeg")
    visitor.settled()
    page.get_by_role("button", name="Search a part").click()
    page.get_by_text("In numbers").click()
    visitor.settled()
    page.wait_for_timeout(400)  # the answer for the box
    visitor.settled()
    page.locator(".why summary").click()
    found += problems(visitor, rules)
    page.locator("[data-facet=vertical]").click()
    page.get_by_role("checkbox", name="shoes").check()
    found += problems(visitor, rules)
    page.keyboard.press("Escape")
    visitor.settled()
    page.locator("#grid a").first.click()
    page.wait_for_selector(".of-item .facts .id")
    visitor.settled()
    found += problems(visitor, rules)
    visitor.expected = [r"status of 4\d\d"]
    visitor.upload(b"nothing", "x.jpg", "image/jpeg")
    page.wait_for_selector(".trouble")
    return found + problems(visitor, rules)


def test_axe_finds_nothing_serious_in_any_state(visitor: Visitor) -> None:
    assert go_round(visitor) == []


def test_the_keyboard_alone_is_enough(visitor: Visitor) -> None:
    page = visitor.open()
    page.on("filechooser", lambda chooser: None)  # so that choosers are caught by the time Enter is pressed
    keyboard = page.keyboard

    def tab_to(selector: str, most: int = 60) -> None:
        for _ in range(most):
            keyboard.press("Tab")
            if page.evaluate("(selector) => document.activeElement.matches(selector)", selector):
                outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
                assert outline != "none", f"the focus on {selector} cannot be seen"
                return
        raise AssertionError(f"Tab does not reach {selector}")

    tab_to("#drop [data-intake=choose]")
    with page.expect_file_chooser() as chooser:
        keyboard.press("Enter")
    chooser.value.set_files({"name": "photo.png", "mimeType": "image/png", "buffer": shop.photo()})
    visitor.settled()
    tab_to("[data-facet=vertical]")
    keyboard.press("Enter")
    page.wait_for_selector("dialog[open]")
    assert page.evaluate("document.activeElement.type") == "checkbox"
    keyboard.press("Space")
    keyboard.press("Escape")
    page.wait_for_function("() => document.activeElement.dataset.facet === 'vertical'")
    visitor.settled()
    tab_to("#grid a")
    keyboard.press("Enter")
    page.wait_for_url("**/?like=*")
    visitor.settled()
    assert page.evaluate("document.activeElement.id") == "query-title"
    page.go_back()
    page.wait_for_selector(".photo")
    visitor.settled()
    assert page.evaluate("document.activeElement.matches('#grid a')")


def test_the_skip_link_keeps_the_photo(visitor: Visitor) -> None:
    page = visitor.open()
    visitor.upload(shop.photo())
    found = visitor.found()
    page.locator(".skip").focus()
    page.keyboard.press("Enter")
    page.wait_for_timeout(200)
    assert page.evaluate("document.activeElement.id") == "results"
    assert page.locator(".photo img").is_visible()
    assert visitor.found() == found


def test_nothing_moves_for_those_who_asked_for_stillness(visitor: Visitor) -> None:
    page = visitor.open()
    moving = """() => [...document.querySelectorAll("*")].filter((one) => {
      const {animationName, transitionDuration} = getComputedStyle(one);
      return animationName !== "none" || transitionDuration.split(", ").some((time) => parseFloat(time) > 0);
    }).length"""
    assert page.evaluate(moving) == 0
    visitor.upload(shop.photo())
    visitor.settled()
    assert page.evaluate(moving) == 0
    page.emulate_media(reduced_motion="no-preference")
    assert page.evaluate(moving) > 0


@pytest.mark.parametrize(("who", "width_px"), [("phone", 320), pytest.param("visitor", 1920, marks=pytest.mark.slow)])
def test_no_width_needs_scrolling_sideways(request: pytest.FixtureRequest, who: str, width_px: int) -> None:
    visitor: Visitor = request.getfixturevalue(who)
    visitor.page.set_viewport_size({"width": width_px, "height": 700})
    overflow = "() => document.documentElement.scrollWidth - innerWidth"
    page = visitor.open()
    assert page.evaluate(overflow) <= 0
    visitor.upload(shop.scene(), "a-name-without-any-place-to-break-it" * 6 + ".jpg", "image/jpeg")
    visitor.settled()
    page.get_by_role("button", name="Search a part").click()
    page.get_by_text("In numbers").click()
    page.wait_for_timeout(300)
    visitor.settled()
    page.locator(".why summary").click()
    assert page.evaluate(overflow) <= 0
    visitor.snap(f"width-{width_px}")


def test_a_phone_shows_results_at_once_and_an_item_beside_the_photo(
    phone: Visitor, tmp_path_factory: pytest.TempPathFactory
) -> None:
    page = phone.open()
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Take a photo").first.tap()
    assert chooser.value.element.get_attribute("capture") == "environment"
    phone.snap("phone-start")
    chooser.value.set_files({"name": "photo.png", "mimeType": "image/png", "buffer": shop.photo()})
    phone.settled()
    phone.snap("phone-results")
    first = page.locator("#grid a").first.bounding_box()
    assert first["y"] + first["height"] <= 844, "the first result is in sight without scrolling"
    assert page.evaluate("scrollY") == 0
    small = small_targets(phone)
    assert small == []

    page.locator("#grid a").nth(1).tap()
    page.wait_for_selector(".about .id")
    assert page.locator("canvas[role=img]").bounding_box() is not None, "beside what was asked about"
    item = page.locator(".about .id").text_content() or ""
    assert page.locator(".about a").get_attribute("href") == f"https://shop.example/p/{quote(item, safe='')}"
    page.get_by_role("button", name="Yes, it is").tap()
    page.get_by_text("Thank you, that is noted.").first.wait_for()
    assert page.evaluate("document.activeElement.id") == "query-title"
    said = json.loads((tmp_path_factory.getbasetemp() / "said.jsonl").read_text().splitlines()[-1])
    assert (said["same"], said["item"]["id"]) == (True, item)
    phone.settled()
    phone.snap("phone-item")
    assert small_targets(phone) == []
    searches = len(phone.searches)
    page.locator("#back").tap()
    page.wait_for_selector(".photo img")
    phone.settled()
    assert len(phone.searches) == searches


def small_targets(visitor: Visitor) -> list[str]:
    """What a finger would miss."""
    small: list[str] = visitor.page.evaluate(
        """() => [...document.querySelectorAll("button, a, summary")]
          .filter((one) => one.checkVisibility())
          .map((one) => {
            const {width, height} = one.getBoundingClientRect();
            return {name: one.textContent.trim(), width, height};
          })
          .filter(({width, height}) => Math.min(width, height) < 44)
          .map(({name}) => name)"""
    )
    return [name for name in small if name not in ("Interface for programs", "Skip to the results")]


def test_the_page_is_light(new_visitor: NewVisitor) -> None:
    visitor = new_visitor()
    sizes: dict[str, int] = {}
    visitor.page.on("response", lambda response: sizes.update({response.url: len(response.body())}))
    visitor.open()
    own = {url: size for url, size in sizes.items() if "/static/" in url or url.endswith("/")}
    assert sum(own.values()) <= MOST_BYTES, "uncompressed"
    assert len(own) > 10
    with_data = sum(sizes.values())
    assert with_data <= MOST_BYTES
