"""What goes wrong, said in words and mended: bad files, a full service, none at all, keys."""

import hashlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser import shop
from tests.browser.conftest import NewVisitor
from tests.browser.driving import Visitor
from tests.serving.http.processes import ServerProcess, serving, wait_until
from univert.serving.problems import PROBLEM_TYPES

FAILED = r"status of (4\d\d|5\d\d)"
GONE = r"net::ERR_"
LARGE_BYTES = 2_000_000


def panel(visitor: Visitor) -> str:
    """What the page says."""
    return visitor.page.locator(".trouble").inner_text()


def test_a_file_that_is_no_use_is_named_and_another_can_be_chosen(visitor: Visitor) -> None:
    visitor.expected = [FAILED]
    page = visitor.open()
    for content, kind, problem in (
        (b"not a photo at all", "image/jpeg", "unsupported-type"),
        (shop.photo()[:300], "image/png", "bad-photo"),
        (b"\xff\xd8\xff" + bytes(LARGE_BYTES), "image/jpeg", "too-large"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image/png", "unsupported-type"),
    ):
        visitor.upload(content, "photo", kind)
        page.wait_for_selector(f'.trouble[data-problem="{problem}"]')
        visitor.snap(f"problem-{problem}")
        assert page.locator(".trouble h3").text_content() in page.title()
        assert page.locator(".trouble code").text_content(), "the request's id, to report it by"
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Choose another photo").click()
    chooser.value.set_files({"name": "good.png", "mimeType": "image/png", "buffer": shop.photo()})
    assert visitor.found()[0] == shop.item_id(0, 0, 0)
    assert page.locator(".trouble").count() == 0


HALF_AN_UPLOAD = (
    b"POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    b"Content-Length: 2128000\r\n\r\n"
    b'--b\r\nContent-Disposition: form-data; name="photo"; filename="a"\r\n\r\n'
)


def test_a_full_service_is_asked_again_by_itself(visitor: Visitor, service: ServerProcess) -> None:
    visitor.expected = [FAILED]
    page = visitor.open()
    with socket.create_connection(("127.0.0.1", service.port)) as other:
        other.sendall(HALF_AN_UPLOAD + bytes(2_127_850))  # all that may be held for one address
        wait_until(lambda: b"univert_upload_bytes 2.127" in service.request("GET", "/metrics").body)
        visitor.upload(shop.photo())
        page.wait_for_selector('.trouble[data-problem="overloaded"]')
        assert "Trying again" in panel(visitor)
        visitor.snap("problem-overloaded")
    assert visitor.found()[0] == shop.item_id(0, 0, 0)
    assert len(visitor.searches) >= 2


def test_without_a_connection_nothing_is_lost(visitor: Visitor) -> None:
    visitor.expected = [GONE]
    page = visitor.open()
    page.context.set_offline(True)
    visitor.upload(shop.photo())
    page.wait_for_selector('.trouble[data-problem="network"]')
    visitor.snap("problem-network")
    page.context.set_offline(False)  # the page hears of it and asks again
    assert visitor.found()[0] == shop.item_id(0, 0, 0)


def test_every_problem_of_the_service_has_words(visitor: Visitor) -> None:
    """And so has one that is not known yet; each names something that can be done."""
    page = visitor.open()
    words = page.evaluate(
        """async (kinds) => {
          const {wordsFor} = await import("/static/problems.js");
          return kinds.map((kind) => wordsFor({kind, detail: "the detail"}));
        }""",
        [*PROBLEM_TYPES, "network", "some-day"],
    )
    names = {"again", "photo", "whole", "clear", "start", "key"}
    assert all(one["title"] and one["advice"] and set(one["actions"]) <= names and one["actions"] for one in words)
    own = [
        one["title"]
        for kind, one in zip(PROBLEM_TYPES, words, strict=False)
        if kind not in ("method-not-allowed", "internal")
    ]
    assert len(set(own)) == len(own)
    assert words[-1]["title"] == words[list(PROBLEM_TYPES).index("internal")]["title"]


@pytest.fixture
def guarded(stock: tuple[Path, Path]) -> Iterator[ServerProcess]:
    """A service that wants a key."""
    line = f"tests:{hashlib.sha256(b'open sesame').hexdigest()}"
    with serving(*stock, engine="onnx", drain_s=0, api_keys=[line]) as process:
        yield process


@pytest.mark.slow
def test_a_key_is_asked_for_once_and_pictures_come_with_it(new_visitor: NewVisitor, guarded: ServerProcess) -> None:
    visitor = new_visitor(guarded.url)
    visitor.expected = [FAILED]
    page = visitor.page
    page.goto(guarded.url)
    page.get_by_label("API key", exact=True).fill("wrong")
    page.get_by_role("button", name="Use this key").click()
    page.get_by_text("did not accept that key").wait_for()
    visitor.snap("key")
    page.get_by_label("API key", exact=True).fill("open sesame")
    page.keyboard.press("Enter")
    page.wait_for_selector("#within:not([hidden])")
    visitor.upload(shop.photo())
    assert visitor.found()[0] == shop.item_id(0, 0, 0)
    page.wait_for_function("() => document.querySelector('#grid img').naturalWidth > 0")
    assert page.locator("#grid img").first.get_attribute("src", timeout=1000).startswith("blob:")  # type: ignore[union-attr]
    page.reload()
    page.wait_for_selector("#within:not([hidden])")
    assert page.locator("dialog").count() == 0
