"""Asking with a photo: upload, paste, drop; the answer; more like this; links and the back button."""

import contextlib
import sys
from urllib.parse import parse_qs, quote, urlsplit

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Error, Route

from tests.browser import shop
from tests.browser.conftest import NewVisitor
from tests.browser.driving import Visitor
from tests.data.pictures import encoded
from tests.serving.http.processes import ServerProcess

TIME_TO_FIRST_RESULT = """() => {
  const at = (name) => performance.getEntriesByName(name).at(-1).startTime;
  return at("univert:results") - at("univert:photo");
}"""
DROP = """(bytes) => {
  const data = new DataTransfer();
  data.items.add(new File([new Uint8Array(bytes)], "photo.png", {type: "image/png"}));
  document.querySelector("footer").dispatchEvent(
    new DragEvent("drop", {dataTransfer: data, bubbles: true, cancelable: true}));
}"""


def test_an_upload_is_answered_with_identity_and_neighbours(
    visitor: Visitor, capsys: pytest.CaptureFixture[str]
) -> None:
    page = visitor.open()
    visitor.snap("start")
    visitor.upload(shop.photo(0, 0))
    found = visitor.found()
    took_ms = page.evaluate(TIME_TO_FIRST_RESULT)
    assert len(found) == 24
    assert found[0] == shop.item_id(0, 0, 0)
    assert page.locator("#grid .near").first.text_content() == "similarity 95%"
    weak = page.locator("#grid .weak").text_content()
    assert weak == "Weak matches below"
    bars = [int(text.removeprefix("similarity ")[:-1]) for text in page.locator("#grid .near").all_text_contents()]
    above = page.evaluate("[...document.querySelector('#grid').children].findIndex((one) => one.matches('.weak'))")
    assert bars == sorted(bars, reverse=True)
    assert bars[above - 1] >= 50 > bars[above] - 1
    assert page.locator("#results-title").text_content() == f"{above} similar images"
    page.wait_for_function(
        "() => [...document.querySelectorAll('#grid img')].slice(0, 8).every((one) => one.naturalWidth > 0)"
    )
    assert page.locator("#identity h2").text_content() == "bags 0"
    assert page.title() == "bags 0 · Univert"
    assert page.evaluate("document.activeElement.id") == "query-title"
    assert page.locator("#spoken").text_content() == "24 results. bags 0."
    assert "No items found." in (page.locator(".box-tools .note").text_content() or "")
    assert page.locator(".found").is_hidden()
    assert page.locator(".mark").count() == 0
    visitor.snap("results")
    with capsys.disabled():
        sys.stdout.write(f"\nfirst results {took_ms:.0f} ms after the photo was chosen\n")


def test_the_card_says_what_a_name_is_worth(visitor: Visitor) -> None:
    page = visitor.open()
    visitor.upload(shop.photo(0, 0))
    visitor.settled()
    promise = page.locator("#identity .promise")
    assert promise.text_content() == "Named when right 9 times in 10, otherwise “maybe”."

    def with_precision(**precisions: float | None) -> str | None:
        """The card for another calibration."""
        page.evaluate(
            """async (precisions) => {
              const {showIdentity} = await import("/static/identity.js");
              const level = (precision) => ({
                value: "it", confidence: 0.5, known: false,
                known_precision: precision ?? 0.9, known_threshold: precision === null ? null : 0.6,
              });
              const levels = Object.entries(precisions).map(([name, precision]) => [name, level(precision)]);
              showIdentity({...Object.fromEntries(levels), evidence: []}, [], () => "/");
            }""",
            precisions,
        )
        return promise.text_content() if promise.count() else None

    said = with_precision(vertical=0.95, style=0.95, brand=0.999, product=0.7)
    assert said.startswith("Named when right 95 times in 100 (product 7 times in 10, brand 999 times in 1000),")
    said = with_precision(vertical=2 / 3, product=None, brand=None)
    assert said == (
        "Named when right 666 times in 1000, otherwise “maybe”. The product and brand can't be told that surely here."
    ), "no more is promised than was asked for"
    assert with_precision(vertical=None, product=None) is None


def test_what_is_unlike_anything_is_not_named(visitor: Visitor) -> None:
    page = visitor.open()
    noise = np.random.default_rng(0).integers(0, 256, size=(90, 120, 3), dtype=np.uint8)
    visitor.upload(encoded(Image.fromarray(noise)))
    visitor.settled()
    assert page.locator("#identity h2").text_content() == "Not sure what this is"
    assert page.locator("#identity .known").count() == 0
    why = page.locator(".why summary").text_content() or ""
    assert "agree" not in why, "the card says that they don't"
    assert "came near" in why
    assert page.locator("#results-title").text_content() == "Nothing much like it"
    assert float(page.locator("#grid .bar i").first.evaluate("(one) => one.style.width.slice(0, -1)")) < 20
    visitor.snap("unknown")


def test_other_formats_that_the_browser_shows_are_made_into_photos(visitor: Visitor) -> None:
    visitor.open()
    visitor.upload(encoded(shop.look(2, 4), "GIF"), "photo.gif", "image/gif")
    assert visitor.found()[0] == shop.item_id(2, 4, 0), "the service itself takes no GIF"


def test_of_a_large_photo_only_what_is_asked_about_is_sent(visitor: Visitor) -> None:
    page = visitor.open()
    sent = page.evaluate(
        """async () => {
          const {addPhoto, prepared} = await import("/static/photo.js");
          const canvas = Object.assign(document.createElement("canvas"), {width: 2000, height: 1500});
          const pen = canvas.getContext("2d");
          const pixels = pen.createImageData(2000, 1500);
          for (let start = 0; start < pixels.data.length; start += 65536) {
            crypto.getRandomValues(pixels.data.subarray(start, Math.min(start + 65536, pixels.data.length)));
          }
          pen.putImageData(pixels, 0, 0);
          const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.95));
          const size = async ({file, box}) => {
            const {width, height} = await createImageBitmap(file);
            return [width, height, box, file.size < blob.size];
          };
          const large = addPhoto(new File([blob], "large.jpg", {type: "image/jpeg"}));
          const small = addPhoto(new File([blob.slice(0, 1000)], "small.jpg", {type: "image/jpeg"}));
          return {
            large: blob.size > 1_500_000,
            whole: await size(await prepared(large, null)),
            part: await size(await prepared(large, [100, 100, 700, 500])),
            untouched: (await prepared(small, [1, 2, 3, 4])).file === small.file,
          };
        }"""
    )
    assert sent == {"large": True, "whole": [1280, 960, None, True], "part": [600, 400, None, True], "untouched": True}


def test_dropping_works_like_choosing(visitor: Visitor) -> None:
    page = visitor.open()
    page.evaluate(DROP, list(shop.photo(2, 1)))
    assert visitor.found()[0] == shop.item_id(2, 1, 0)
    assert page.locator("#veil").is_hidden()


def test_a_picture_in_the_real_clipboard_is_pasted_with_the_keyboard(visitor: Visitor) -> None:
    page = visitor.open()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.evaluate(
        """async (bytes) => navigator.clipboard.write(
             [new ClipboardItem({"image/png": new Blob([new Uint8Array(bytes)], {type: "image/png"})})])""",
        list(shop.photo(0, 3)),
    )
    page.keyboard.press("Control+v")
    assert visitor.found()[0] == shop.item_id(0, 3, 0)
    page.locator("#home").click()
    page.get_by_role("button", name="Paste").click()
    assert visitor.found()[0] == shop.item_id(0, 3, 0)


def test_more_like_this_and_back_again(visitor: Visitor) -> None:
    page = visitor.open()
    visitor.upload(shop.photo(0, 0))
    before = visitor.found()
    page.evaluate("scrollTo(0, 400)")
    chosen = page.locator("#grid a").nth(9)
    wanted = chosen.get_attribute("data-like") or ""
    chosen.scroll_into_view_if_needed()
    scrolled = page.evaluate("scrollY")
    chosen.click()
    page.wait_for_url("**/?like=*")
    visitor.settled()
    assert parse_qs(urlsplit(page.url).query)["like"] == [wanted]
    assert wanted not in visitor.found()
    assert page.evaluate("[scrollY, document.activeElement.id]") == [0, "query-title"]
    assert page.locator(".facts .id").text_content() == wanted
    visitor.snap("more-like-this")

    searches = len(visitor.searches)
    page.go_back()
    page.wait_for_selector(".photo img")
    assert visitor.found() == before
    assert len(visitor.searches) == searches, "an answer that was there is not asked for again"
    assert page.evaluate("document.activeElement.dataset.like") == wanted
    assert page.evaluate("scrollY") == scrolled
    page.go_forward()
    page.wait_for_selector(".of-item")
    visitor.settled()
    assert page.evaluate("document.activeElement.id") == "query-title"
    page.go_back()
    page.wait_for_selector(".photo img")
    assert page.evaluate("document.activeElement.dataset.like") == wanted
    page.go_back()
    page.wait_for_selector("#start:not([hidden])")
    assert page.evaluate("document.activeElement.id") == "start-title"
    page.go_forward()
    page.wait_for_selector(".photo img")
    visitor.settled()
    assert page.evaluate("document.activeElement.dataset.like") == wanted


def test_the_page_works_under_the_path_of_a_proxy(new_visitor: NewVisitor, service: ServerProcess) -> None:
    """That nothing is asked for outside of the path is checked for every visitor."""
    visitor = new_visitor(f"{service.url}/visual")

    def proxy(route: Route) -> None:
        with contextlib.suppress(Error):  # the browser is closed while pictures are on their way
            route.fulfill(response=route.fetch(url=route.request.url.replace("/visual/", "/", 1)))

    visitor.page.route(f"{visitor.url}/**", proxy)
    page = visitor.open()
    visitor.upload(shop.photo(0, 0))
    visitor.settled()
    page.locator("#grid a").first.click()
    page.wait_for_url("**/visual/?like=*")
    page.wait_for_function("() => document.querySelector('.of-item img').naturalWidth > 0")
    page.reload()
    visitor.settled()
    page.locator("#home").click()
    page.wait_for_url("**/visual/")


def test_a_link_leads_to_the_same_answer(visitor: Visitor) -> None:
    wanted = shop.item_id(2, 6, 1)
    page = visitor.open(f"/?like={quote(wanted, safe='')}&vertical=shoes&brand={quote(shop.BRANDS[0])}&k=5")
    found = visitor.found()
    assert 0 < len(found) <= 5
    assert all(name.startswith("shoes/") for name in found)
    assert page.locator("#filters .chip").count() == 2
    page.wait_for_function("() => document.querySelector('#query-title').textContent.startsWith('<img')")
    assert page.locator("#query-title").text_content() == shop.HOSTILE, "names are text, never markup"
    card = page.locator("#grid a").first
    card.scroll_into_view_if_needed()
    assert card.get_attribute("href", timeout=1000).startswith("?like=")  # type: ignore[union-attr]


@pytest.mark.slow
def test_show_more_goes_on_where_the_list_ended(visitor: Visitor) -> None:
    page = visitor.open()
    visitor.upload(shop.photo())
    first = visitor.found()
    page.get_by_role("button", name="Show more").click()
    page.wait_for_function("() => document.querySelectorAll('#grid a').length > 24")
    assert visitor.found()[:24] == first
    assert "k=48" in page.url
    assert page.evaluate("document.activeElement.dataset.like") == first[-1]
