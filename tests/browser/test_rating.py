"""The rating page on a real server: keyboard alone, a phone, a kill between answers, two raters at once."""

import contextlib
import itertools
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from playwright.sync_api import Browser, Page

from tests.browser import shop
from tests.browser.conftest import DESK, PHONE
from tests.browser.driving import Visitor
from tests.browser.test_access import problems, small_targets
from tests.serving.http.processes import ServerProcess, wait_until
from univert.data.build import build_catalogue
from univert.data.ratings import Answer, Ratings

COMMAND = [sys.executable, "-c", "import univert.cli.rating, univert.cli; univert.cli.main()", "rate"]


class RatingServer:
    """`univert rate` as a process group, which can be killed and started again on the same port."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.ratings = folder / "ratings"
        self.given = [str(folder / "triplets.csv"), str(folder / "shop.lance"), "--out", str(self.ratings), *options]
        self.server: ServerProcess | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        process = subprocess.Popen(
            [*COMMAND, *self.given, "--port", str(self.port)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )
        server = ServerProcess(process)
        server.reader = threading.Thread(target=server.read_log, daemon=True)
        server.reader.start()
        wait_until(lambda: server.port or process.poll() is not None, 60)
        assert process.poll() is None, server.lines
        self.server, self.port = server, server.port
        wait_until(self.listens, 60)

    def listens(self) -> bool:
        assert self.server is not None
        with contextlib.suppress(ConnectionError):
            return self.server.request("GET", "/session").status == 200
        return False

    def kill(self) -> None:
        """All of its processes at once, as when the machine goes down."""
        assert self.server is not None
        processes = [psutil.Process(self.server.process.pid)]
        processes += processes[0].children(recursive=True)
        os.killpg(self.server.process.pid, signal.SIGKILL)
        psutil.wait_procs(processes, timeout=10)
        self.server.wait()
        assert self.server.process.stdout is not None
        self.server.process.stdout.close()

    def answers(self) -> list[tuple[str, str, str, str]]:
        with Ratings(self.ratings) as ratings:
            anchors = {one.id: one.anchor for one in ratings.triplets()}
            return [(one.rater, anchors[one.triplet], one.same, one.different) for one in ratings.answers()]


@pytest.fixture(scope="module")
def rating(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RatingServer]:
    folder = tmp_path_factory.mktemp("rating")
    build_catalogue(shop.rows(), folder / "shop.lance")
    of_train = [product for product in range(shop.PRODUCTS) if shop.SPLITS[product % 4] == "train" and product != 7]
    rows = ["anchor,positive,negative"]
    for (vertical, _), (one, other), copy in itertools.product(
        enumerate(shop.VERTICALS), itertools.permutations(of_train, 2), range(2)
    ):
        ids = [shop.item_id(vertical, *rest) for rest in ((one, copy), (one, copy + 1), (other, copy))]
        rows.append(",".join(ids))
    (folder / "triplets.csv").write_text("\n".join(rows))
    server = RatingServer(folder, "--raters", "2")
    server.start()
    yield server
    server.kill()


@pytest.fixture
def enter(browser: Browser, rating: RatingServer) -> Iterator[object]:
    """Go to the page under a name; options are those of a Playwright context."""
    visitors: list[Visitor] = []

    def go(name: str, **options: object) -> Page:
        visitor = Visitor(browser.new_context(**{**DESK, **options}), rating.url, None)
        visitors.append(visitor)
        page = visitor.page
        page.goto(rating.url)
        page.get_by_label("Your name").fill(name)
        page.keyboard.press("Enter")
        page.wait_for_selector("#rate:not([hidden])")
        return page

    go.visitors = visitors  # type: ignore[attr-defined]
    yield go
    for visitor in visitors:
        visitor.leave()
        visitor.page.context.close()


def shown(page: Page) -> str:
    """The address of the anchor in sight."""
    return page.locator("#anchor img").get_attribute("src") or ""


def saved(page: Page, rating: RatingServer, name: str, count: int) -> list[tuple[str, str]]:
    wait_until(lambda: sum(answer[0] == name for answer in rating.answers()) == count, 20)
    return [answer[2:] for answer in rating.answers() if answer[0] == name]


def test_the_keyboard_alone_is_enough(enter, rating: RatingServer) -> None:
    page = enter("Key Board")
    first = shown(page)
    page.keyboard.press("1")
    assert page.locator(".asked").get_attribute("data-question") == "different"
    page.keyboard.press("Backspace")
    assert page.locator(".asked").get_attribute("data-question") == "same"
    for key in "13":
        page.keyboard.press(key)
    assert shown(page) != first
    for key in "21":
        page.keyboard.press(key)
    assert saved(page, rating, "Key Board", 2) == [("yes", "unsure"), ("no", "yes")]
    page.keyboard.press("Backspace")
    page.keyboard.press("Backspace")
    page.wait_for_function("(first) => document.querySelector('#anchor img').getAttribute('src') === first", arg=first)
    saved(page, rating, "Key Board", 0)
    page.locator(".positive button").first.focus()
    for _ in range(2):
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        page.keyboard.press("Tab")
        page.keyboard.press("Tab")
    assert saved(page, rating, "Key Board", 1) == [("yes", "yes")]
    loaded = "() => [...document.querySelectorAll('.frame img')].filter((one) => one.naturalWidth > 0).length"
    assert page.evaluate(loaded) == 3
    page.reload()
    page.wait_for_selector("#rate:not([hidden])")
    assert page.locator("#progress").inner_text().startswith("1 by you")


@pytest.mark.parametrize("options", [DESK, PHONE, {**PHONE, "color_scheme": "dark"}], ids=["desk", "phone", "dark"])
def test_everything_is_in_sight_and_axe_finds_nothing(enter, rating: RatingServer, options: dict[str, object]) -> None:
    name = f"Axe {len(rating.answers())}"
    page = enter(name, **options)
    visitor = enter.visitors[-1]
    assert problems(visitor) == []
    assert page.evaluate("[scrollX, document.documentElement.scrollWidth - innerWidth]") == [0, 0]
    foot = page.locator("#undo").bounding_box()
    assert foot["y"] + foot["height"] <= page.viewport_size["height"], "no need to scroll"
    if "is_mobile" in options:
        assert small_targets(visitor) == []
        page.locator("[data-question=different]").get_by_role("button", name="Yes").tap()
        page.locator("[data-question=same]").get_by_role("button", name="Unsure").tap()
        assert saved(page, rating, name, 1) == [("unsure", "yes")]
    page.locator("#leave").click()
    page.wait_for_selector("#enter:not([hidden])")
    assert problems(visitor) == []


def test_two_raters_at_once_get_different_work(enter, rating: RatingServer) -> None:
    one, other = enter("One"), enter("Other")
    assert shown(one) != shown(other)
    seen: list[set[str]] = []
    for page, name in ((one, "One"), (other, "Other")):
        for _ in range(4):
            page.keyboard.press("1")
            page.keyboard.press("1")
        saved(page, rating, name, 4)
        with Ratings(rating.ratings) as ratings:
            seen.append({str(answer.triplet) for answer in ratings.answers() if answer.rater == name})
    assert not seen[0] & seen[1]


def test_a_kill_between_answers_loses_nothing(enter, rating: RatingServer) -> None:
    page = enter("Survivor")
    enter.visitors[-1].expected = ["ERR_CONNECTION_REFUSED", "ERR_CONNECTION_RESET", "ERR_EMPTY_RESPONSE"]
    page.keyboard.press("1")
    page.keyboard.press("2")
    saved(page, rating, "Survivor", 1)
    rating.kill()
    for key in "2131":
        page.keyboard.press(key)
    # 3 if the service went down after it had saved the first and before it said so: sent again, it counts once
    page.get_by_text(re.compile("[23] answers are not saved yet")).wait_for()
    page.keyboard.press("1")  # the third, half said
    rating.start()
    assert saved(page, rating, "Survivor", 3) == [("yes", "no"), ("no", "yes"), ("unsure", "yes")]
    page.wait_for_function("() => !document.querySelector('#unsaved').textContent")
    assert page.locator(".asked").get_attribute("data-question") == "different"


def test_answers_that_could_not_be_saved_wait_in_the_browser(enter, rating: RatingServer) -> None:
    page = enter("Tunnel")
    enter.visitors[-1].expected = ["ERR_INTERNET_DISCONNECTED", "ERR_FAILED"]
    page.route("**/answers", lambda route: route.abort())
    page.keyboard.press("1")
    page.keyboard.press("1")
    page.get_by_text("1 answer is not saved yet").wait_for()
    page.unroute_all()
    page.reload()  # as if the browser had died
    assert saved(page, rating, "Tunnel", 1) == [("yes", "yes")]


def test_the_last_answer_ends_the_work(enter, rating: RatingServer) -> None:
    page = enter("Last")
    with Ratings(rating.ratings) as ratings:
        held = {one.id for one in ratings.lease("Last", 1)}
        ratings.put(
            Answer(triplet=one.id, rater="Last", same="yes", different="yes", seconds=1.0, time_s=0.0)
            for one in ratings.triplets()
            if one.id not in held
        )
        ratings.choose(raters=50, gold_share=0)
        for _ in held:
            page.keyboard.press("1")
            page.keyboard.press("1")
        page.get_by_text("You have done your part").wait_for()
        assert problems(enter.visitors[-1]) == []
        ratings.choose(raters=1, gold_share=0)
    page.get_by_role("button", name="Look again").click()
    page.get_by_text("All done. Thank you.").wait_for()
    page.keyboard.press("Backspace")
    page.wait_for_selector("#rate:not([hidden])")
