import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.browser import shop
from tests.browser.driving import Visitor, chromium
from tests.conftest import made_once
from tests.serving.http.processes import ServerProcess, serving
from tests.serving.small_models import save_small_detector, save_small_embedder
from univert.data.build import build_catalogue
from univert.data.catalogue import Catalogue
from univert.identity.vote import CALIBRATION_FILE, AttributeCalibration, Calibration
from univert.models.runtime.engine import ONNX_FILE, OnnxEngine
from univert.search.index import Index
from univert.search.indexing import index_catalogue
from univert.text_search import TextSearch

NewVisitor = Callable[..., Visitor]
DESK: dict[str, Any] = {"viewport": {"width": 1280, "height": 800}, "reduced_motion": "reduce"}
PHONE = DESK | {
    "viewport": {"width": 390, "height": 844},
    "has_touch": True,
    "is_mobile": True,
    "device_scale_factor": 2,
}


@pytest.fixture(scope="session")
def stock(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model and an index of the shop."""
    folder = made_once(tmp_path_factory, "shop", make_stock)
    return folder / "model", folder / "index"


def make_stock(folder: Path) -> None:
    build_catalogue(shop.rows(), folder / "shop.lance")
    model = OnnxEngine(save_small_embedder(folder / "model") / ONNX_FILE)
    index_catalogue(model, Catalogue.open(folder / "shop.lance"), folder / "index")
    TextSearch.learn(Index.open(folder / "index"), shop.names()).save(folder / "index")
    names = ("vertical", "brand", "style", "product")
    sure = AttributeCalibration(temperature=0.05, weights=(0.0, 1.0, -8.0, 0.0, 0.0), precision=0.9, threshold=0.5)
    calibration = Calibration(
        model_fingerprint=model.fingerprint,
        engine="onnx",
        neighbours=8,
        attributes=dict.fromkeys(names, sure),
        similarity_weights=(3.0, -12.0),
    )
    calibration.save(folder / "index" / CALIBRATION_FILE)
    save_small_detector(folder / "detector", shop.VERTICALS)


@pytest.fixture(scope="session")
def service(stock: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """The service as it is run."""
    settings = {"photo_bytes_max": 2_000_000, "uploads_bytes_max": 2_200_000, "drain_s": 0, "engine": "onnx"}
    shown = {"item_link": "https://shop.example/p/{id}", "feedback": str(tmp_path_factory.getbasetemp() / "said.jsonl")}
    finds = {"detector": str(stock[0].parent / "detector")}
    with serving(*stock, **settings, **shown, **finds) as process:
        yield process


@pytest.fixture(scope="session")
def shots() -> Path | None:
    """Where pictures of the page are kept, if somebody wants them."""
    folder = os.environ.get("UNIVERT_SCREENSHOTS")
    return Path(folder) if folder else None


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """One browser for these tests; it ends with them, since its event loop would be in other tests' way."""
    path = chromium()
    if path is None:
        pytest.skip("no Chromium: install it (Debian: apt-get install chromium) or name it in UNIVERT_CHROMIUM")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def new_visitor(browser: Browser, service: ServerProcess, shots: Path | None) -> Iterator[NewVisitor]:
    """Visitors, each with a browser profile of its own; options are those of a Playwright context."""
    visitors: list[Visitor] = []

    def make(url: str = service.url, **options: Any) -> Visitor:
        visitors.append(Visitor(browser.new_context(**DESK | options), url, shots))
        return visitors[-1]

    yield make
    for visitor in visitors:
        visitor.leave()
        visitor.page.context.close()


@pytest.fixture(scope="package")
def desk(browser: Browser, service: ServerProcess, shots: Path | None) -> Visitor:
    return Visitor(browser.new_context(**DESK), service.url, shots)


@pytest.fixture
def visitor(desk: Visitor) -> Iterator[Visitor]:
    """Somebody at a desk, with the same page as in the test before: a new one takes a second to warm up."""
    yield desk
    desk.leave()


@pytest.fixture(scope="package")
def hand(browser: Browser, service: ServerProcess, shots: Path | None) -> Visitor:
    return Visitor(browser.new_context(**PHONE), service.url, shots)


@pytest.fixture
def phone(hand: Visitor) -> Iterator[Visitor]:
    """Somebody with a phone; otherwise as `visitor`."""
    yield hand
    hand.leave()
