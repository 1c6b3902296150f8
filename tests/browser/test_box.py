"""The box on the photo, by mouse, finger and keyboard; the results follow."""

from typing import Any

import pytest
from playwright.sync_api import FloatRect

from tests.browser import shop
from tests.browser.driving import Visitor

# Parts of the scene that hold one product, as shares of its width and height.
LAMP, BAG = (0.575, 0.05, 0.875, 0.45), (0.575, 0.55, 0.875, 0.95)


def ask_about_the_scene(visitor: Visitor) -> FloatRect:
    visitor.open()
    visitor.upload(shop.scene(), "table.jpg", "image/jpeg")
    visitor.settled()
    visitor.page.wait_for_selector(".box-tools")
    return photo_place(visitor)


def photo_place(visitor: Visitor) -> FloatRect:
    place = visitor.page.locator(".photo").bounding_box()
    assert place is not None
    return place


def drag(visitor: Visitor, part: tuple[float, float, float, float], place: FloatRect) -> None:
    mouse = visitor.page.mouse
    mouse.move(place["x"] + part[0] * place["width"], place["y"] + part[1] * place["height"])
    mouse.down()
    mouse.move(place["x"] + part[2] * place["width"], place["y"] + part[3] * place["height"], steps=12)
    mouse.up()


def wait_for_first(visitor: Visitor, prefix: str) -> None:
    visitor.page.wait_for_function(
        "(prefix) => document.querySelector('#grid a')?.dataset.like.startsWith(prefix)", arg=prefix
    )


def box_of(visitor: Visitor) -> list[int]:
    return [int(field.input_value()) for field in visitor.page.locator(".fields input").all()]


def test_drawing_a_box_searches_what_is_in_it(visitor: Visitor) -> None:
    place = ask_about_the_scene(visitor)
    before = len(visitor.searches)
    drag(visitor, LAMP, place)
    wait_for_first(visitor, "lamps/näme 2")
    visitor.snap("box")
    x0, y0, x1, y1 = box_of(visitor)
    assert [x0, x1] == pytest.approx([0.575 * 800, 0.875 * 800], abs=4)
    assert [y0, y1] == pytest.approx([0.05 * 600, 0.45 * 600], abs=4)
    assert len(visitor.searches) - before <= 3, "a stroke of many moves is few questions"
    visitor.page.emulate_media(forced_colors="active")
    assert visitor.page.locator(".box").evaluate("(one) => getComputedStyle(one).borderTopWidth") == "3px"
    visitor.page.emulate_media(forced_colors="none")
    drag(visitor, BAG, place)
    wait_for_first(visitor, "bags/näme 4")
    before = len(visitor.searches)
    visitor.page.get_by_role("button", name="Whole photo").click()
    visitor.settled()
    assert visitor.page.locator(".box").is_hidden()
    assert len(visitor.searches) == before, "the whole photo was answered before"


def test_the_box_is_moved_and_resized_by_mouse_and_stays_inside(visitor: Visitor) -> None:
    place = ask_about_the_scene(visitor)
    drag(visitor, (0.1, 0.1, 0.4, 0.4), place)
    drawn = box_of(visitor)
    drag(visitor, (0.25, 0.25, 0.45, 0.35), place)  # from inside: moves
    moved = box_of(visitor)
    assert moved[2] - moved[0] == pytest.approx(drawn[2] - drawn[0], abs=2)
    assert moved[0] - drawn[0] == pytest.approx(0.2 * 800, abs=6)
    drag(visitor, (moved[2] / 800, moved[3] / 600, 0.95, 0.9), place)  # from the corner: resizes
    resized = box_of(visitor)
    assert resized[:2] == pytest.approx(moved[:2], abs=2)
    assert resized[2] == pytest.approx(0.95 * 800, abs=6)
    drag(visitor, (0.7, 0.7, 3.0, 0.7), place)  # far outside: stops at the edge
    assert box_of(visitor)[2] == 800
    visitor.settled()


def test_older_questions_are_called_off(visitor: Visitor) -> None:
    ask_about_the_scene(visitor)
    cancelled: list[str | None] = []
    visitor.page.on("requestfailed", lambda request: cancelled.append(request.failure))
    visitor.page.evaluate(
        """async () => {
          const {Searcher} = await import("/static/answers.js");
          const {noFilters} = await import("/static/place.js");
          window.heard = [];
          const searcher = new Searcher({
            onAnswer: (answer, place) => heard.push(place.k),
            onTrouble: (problem) => heard.push(problem.kind),
          });
          const id = document.querySelector("#grid a").dataset.like;
          for (const k of [100, 3, 4]) {
            searcher.ask({query: {kind: "item", id}, box: null, filters: noFilters(), k});
            await new Promise((resolve) => setTimeout(resolve));
          }
        }"""
    )
    visitor.page.wait_for_function("() => heard.length > 0")
    visitor.page.wait_for_timeout(200)
    assert visitor.page.evaluate("heard") == [4]
    assert "net::ERR_ABORTED" in cancelled


def test_the_keyboard_does_all_that_the_mouse_does(visitor: Visitor) -> None:
    ask_about_the_scene(visitor)
    page = visitor.page
    page.get_by_role("button", name="Search a part").focus()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.className") == "box"
    before = box_of(visitor)
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Alt+ArrowUp")
    moved = box_of(visitor)
    assert moved[0] > before[0]
    assert moved[1] < before[1] - 3 * (moved[0] - before[0])
    page.keyboard.press("Shift+ArrowLeft")
    assert box_of(visitor)[2] < moved[2]
    label = page.locator(".box").get_attribute("aria-label") or ""
    assert "% of the width" in label
    visitor.settled()
    page.keyboard.press("Delete")
    assert page.locator(".box").is_hidden()
    assert "Search a part" in page.evaluate("document.activeElement.textContent")


def test_a_finger_taps_drags_and_still_scrolls(phone: Visitor) -> None:
    place = ask_about_the_scene(phone)
    page = phone.page
    page.touchscreen.tap(place["x"] + 0.72 * place["width"], place["y"] + 0.25 * place["height"])
    wait_for_first(phone, "lamps/näme 2")
    phone.snap("phone-box")
    touch = page.context.new_cdp_session(page)
    handle = page.locator(".handle.nw").bounding_box()
    assert handle["width"] >= 44, "large enough for a finger"
    before = box_of(phone)
    x, y = handle["x"] + handle["width"] / 2, handle["y"] + handle["height"] / 2
    stroke(touch, (x, y), (x - 60, y + 30))
    assert box_of(phone)[0] < before[0] - 50
    assert box_of(phone)[1] > before[1] + 20
    page.get_by_role("button", name="Whole photo").click()
    phone.settled()
    stroke(touch, (place["x"] + 100, place["y"] + 200), (place["x"] + 100, place["y"] + 20))
    page.wait_for_function("() => scrollY > 0")
    assert page.locator(".box").is_hidden(), "without a box a finger on the photo scrolls the page"


def stroke(touch: Any, start: tuple[float, float], end: tuple[float, float], steps: int = 8) -> None:
    points = [
        {"x": start[0] + (end[0] - start[0]) * n / steps, "y": start[1] + (end[1] - start[1]) * n / steps}
        for n in range(steps + 1)
    ]
    for n, point in enumerate(points):
        touch.send("Input.dispatchTouchEvent", {"type": "touchMove" if n else "touchStart", "touchPoints": [point]})
    touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
