"""Fixtures of the running service: a process for real requests, applications in this process for the rest."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.conftest import made_once
from tests.serving.http.processes import ServerProcess, serving
from tests.serving.small_models import save_small_detector
from univert.models.embedder import Embedder
from univert.models.runtime.onnx_export import export_onnx
from univert.search.index import Index
from univert.serving.app import create_app
from univert.serving.settings import Settings

SMALL_LIMITS: dict[str, Any] = {
    "photo_bytes_max": 300_000,
    "uploads_bytes_max": 3_000_000,
    "photo_pixels_max": 4_000_000,
    "body_deadline_s": 3,
    "idle_s": 1,
    "drain_s": 0.3,
}


@pytest.fixture(scope="session")
def model_folder(model: Embedder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    def make(folder: Path) -> None:
        export_onnx(model.save_pretrained(folder / "model"))

    return made_once(tmp_path_factory, "served", make) / "model"


@pytest.fixture(scope="session")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_once(tmp_path_factory, "small", lambda folder: save_small_detector(folder / "detector")) / "detector"


@pytest.fixture(scope="session")
def server(model_folder: Path, index: Index, detector: Path) -> Iterator[ServerProcess]:
    with serving(model_folder, index.path, detector=str(detector), **SMALL_LIMITS) as started:
        yield started


Client = Callable[..., TestClient]


@pytest.fixture
def client(model_folder: Path, index: Index) -> Iterator[Client]:
    """Clients of applications in this process, each with settings of its own."""
    opened: list[TestClient] = []

    def open_client(**settings: Any) -> TestClient:
        given = {"model": str(model_folder), "index": str(index.path), "drain_s": 0, **settings}
        app = create_app(Settings(**given))
        opened.append(TestClient(app, base_url="http://localhost", raise_server_exceptions=False))
        opened[-1].__enter__()
        return opened[-1]

    yield open_client
    for one in opened:
        one.__exit__(None, None, None)


@pytest.fixture(scope="session")
def photo() -> bytes:
    from tests.small_shop import picture

    return picture(4, 1)
