"""The items found in a photo: chosen on it or by buttons, adjusted by hand, answered without another question."""

import json
from typing import Any

import psutil
import pytest

from tests.browser import shop
from tests.browser.driving import Visitor
from tests.browser.test_box import box_of, drag, photo_place, stroke, wait_for_first
from tests.serving.http.processes import ServerProcess

ITEMS = ("bags 1", "lamps 2", "shoes 3", "bags 4")
FIRST = ("bags/näme 1", "lamps/näme 2", "shoes/näme 3", "bags/näme 4")


def show_the_scene(visitor: Visitor) -> Any:
    page = visitor.open()
    visitor.upload(shop.scene(), "table.jpg", "image/jpeg")
    visitor.settled()
    page.wait_for_selector(".found:not([hidden])")
    return page


def chosen(visitor: Visitor) -> list[str]:
    return [text.split(",")[0] for text in visitor.page.locator(".found [aria-pressed=true]").all_text_contents()]


def test_each_item_is_marked_and_chosen_without_another_question(visitor: Visitor) -> None:
    page = show_the_scene(visitor)
    assert page.locator(".mark").count() == 4
    buttons = page.locator(".found button")
    assert buttons.all_text_contents() == [
        "Whole photo",
        *(f"{name}, item {place} of 4" for place, name in enumerate(ITEMS, 1)),
    ]
    assert page.locator("#spoken").text_content() == "24 results. 4 items found."
    assert page.locator("#identity h2").text_content() == "4 items found"
    assert page.title() == "4 items found · Univert"
    assert chosen(visitor) == ["Whole photo"]
    whole = visitor.found()
    visitor.snap("items")
    place = photo_place(visitor)
    page.mouse.click(place["x"] + 0.725 * place["width"], place["y"] + 0.25 * place["height"])
    wait_for_first(visitor, FIRST[1])
    assert chosen(visitor) == ["lamps 2"]
    assert box_of(visitor) == pytest.approx([460, 30, 700, 270], abs=1)
    dot = page.locator(".mark i").first.bounding_box()
    middle = (dot["x"] + dot["width"] / 2 - place["x"]) / place["width"]
    assert middle == pytest.approx(0.225, abs=0.003), "a dot stays in the middle of its item"
    assert page.locator("#identity h2").text_content() == "lamps 2"
    visitor.snap("item")
    page.mouse.click(place["x"] + 0.6 * place["width"], place["y"] + 0.6 * place["height"])
    wait_for_first(visitor, FIRST[3])
    for name, first in zip(ITEMS, FIRST, strict=True):
        page.get_by_role("button", name=name).click()
        wait_for_first(visitor, first)
        assert chosen(visitor) == [name]
        assert page.evaluate("document.activeElement.textContent").startswith(name)
    page.get_by_role("button", name="Whole photo").click()
    assert visitor.found() == whole
    assert page.locator(".box").is_hidden()
    assert len(visitor.searches) == 1
    page.emulate_media(forced_colors="active")
    assert page.locator(".mark").first.evaluate("(one) => getComputedStyle(one).borderTopWidth") == "2px"


def test_the_frame_of_an_item_is_adjusted_by_hand(visitor: Visitor) -> None:
    page = show_the_scene(visitor)
    page.get_by_role("button", name="shoes 3").click()
    wait_for_first(visitor, FIRST[2])
    before = box_of(visitor)
    handle = page.locator(".handle.se").bounding_box()
    x, y = handle["x"] + handle["width"] / 2, handle["y"] + handle["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 30, y - 10, steps=4)
    page.mouse.up()
    page.wait_for_function("() => document.querySelectorAll('.found [aria-pressed=true]').length === 0")
    visitor.settled()
    assert box_of(visitor)[:2] == before[:2]
    assert box_of(visitor)[2] > before[2]
    assert len(visitor.searches) > 1
    searches = len(visitor.searches)
    page.get_by_role("button", name="shoes 3").click()
    wait_for_first(visitor, FIRST[2])
    assert box_of(visitor) == before
    assert len(visitor.searches) == searches
    drag(visitor, (0.4, 0.3, 0.6, 0.7), photo_place(visitor))  # begins between the items
    assert chosen(visitor) == []
    page.locator("#grid a").first.click()
    page.wait_for_selector("canvas[role=img]")
    page.go_back()
    page.wait_for_selector(".found:not([hidden])")
    assert page.locator(".found button").count() == 5


def test_a_filter_narrows_the_item_that_is_chosen(visitor: Visitor) -> None:
    page = show_the_scene(visitor)
    page.get_by_role("button", name="lamps 2").click()
    wait_for_first(visitor, FIRST[1])
    page.locator("[data-facet=vertical]").click()
    page.get_by_role("checkbox", name="shoes").check()
    page.keyboard.press("Escape")
    wait_for_first(visitor, "shoes/")
    assert chosen(visitor) == ["lamps 2"]
    assert page.locator("#identity h2").text_content() == "lamps 2"


def test_a_service_without_a_detector_says_nothing_of_items(visitor: Visitor) -> None:
    def without(route: Any) -> None:
        answer = route.fetch()
        body = {**json.loads(answer.body()), "items": [], "detector": None}
        route.fulfill(response=answer, json=body)

    visitor.page.route("**/search", without)
    page = visitor.open()
    visitor.upload(shop.scene(), "table.jpg", "image/jpeg")
    visitor.settled()
    assert "No items" not in (page.locator(".box-tools .note").text_content() or "")
    assert page.locator(".found").is_hidden()


def test_a_finger_chooses_and_results_stay_in_sight(phone: Visitor) -> None:
    page = show_the_scene(phone)
    place = photo_place(phone)
    phone.snap("phone-items")

    def first_result_in_sight() -> bool:
        first = page.locator("#grid a").first.bounding_box()
        return bool(first["y"] + first["height"] <= 844)

    assert first_result_in_sight()
    for button in page.locator(".found button").all():
        assert button.bounding_box()["height"] >= 44
    page.touchscreen.tap(place["x"] + 0.7 * place["width"], place["y"] + 0.3 * place["height"])
    wait_for_first(phone, FIRST[1])
    assert chosen(phone) == ["lamps 2"]
    phone.snap("phone-item-of-photo")
    assert first_result_in_sight()
    page.get_by_role("button", name="bags 4").tap()
    wait_for_first(phone, FIRST[3])
    assert len(phone.searches) == 1
    touch = page.context.new_cdp_session(page)
    handle = page.locator(".handle.nw").bounding_box()
    x, y = handle["x"] + handle["width"] / 2, handle["y"] + handle["height"] / 2
    before = box_of(phone)
    stroke(touch, (x, y), (x - 30, y - 20))
    assert box_of(phone)[0] < before[0]
    page.get_by_role("button", name="Whole photo").click()
    assert page.locator(".box").is_hidden()
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0


def test_the_service_that_finds_items_does_without_pytorch(service: ServerProcess) -> None:
    assert service.events("finds items")[0]["engine"] == "onnx"
    for process in psutil.Process(service.process.pid).children(recursive=True):
        assert not any("libtorch" in region.path for region in process.memory_maps())


def test_a_press_means_the_nearest_dot_else_the_smallest_frame(visitor: Visitor) -> None:
    page = visitor.open()
    meant = page.evaluate(
        """async () => {
          const {itemAt} = await import("/static/found.js");
          const items = [[0, 0, 100, 100], [10, 10, 60, 60], [80, 80, 90, 90]].map((box) => ({box}));
          const at = (x, y, chosen = null) => itemAt(items, [x, y], {reach: 5, chosen})?.box.join(",") ?? null;
          return [
            at(52, 52), at(20, 20), at(70, 10), at(85, 85), at(200, 200),
            at(20, 20, [10, 10, 60, 60]), at(70, 70, [10, 10, 60, 60]), at(20, 20, [15, 15, 25, 25]),
            at(50, 50, items[1].box),
          ];
        }"""
    )
    large, middle, small = "0,0,100,100", "10,10,60,60", "80,80,90,90"
    assert meant == [large, middle, large, small, None, None, large, None, large]
