"""What the service does beside its answers, seen from within: whose turn it is, what it takes up, what it notices."""

from __future__ import annotations

import dataclasses
import io
import shutil
import threading
import time
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from PIL import Image
from starlette.testclient import TestClient

from tests.serving.http.processes import wait_until
from tests.serving.served import Client
from univert.identity.vote import AttributeCalibration, Calibration
from univert.models.embedder import Embedder
from univert.search.index import Index
from univert.search.writer import IndexWriter
from univert.serving import service
from univert.serving.app import create_app
from univert.serving.settings import Settings


def test_large_photos_are_decoded_one_at_a_time_even_when_nobody_waits_any_more(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, most, lock = [0], [0], threading.Lock()
    decode = service.decode_photo

    def watched(*given: Any, **options: Any) -> Image.Image:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        try:
            return decode(*given, **options)
        finally:
            with lock:
                running[0] -= 1

    monkeypatch.setattr(service, "decode_photo", watched)
    buffer = io.BytesIO()
    Image.new("RGB", (3000, 2600)).save(buffer, "PNG", compress_level=1)
    served = client(request_deadline_s=0.05)
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: served.post("/embed", files={"photo": buffer.getvalue()}), range(6)))
    assert {answer.status_code for answer in answers} == {504}
    assert most == [1]
    wait_until(lambda: running == [0])


def test_an_index_that_cannot_be_searched_is_said(client: Client, index: Index, photo: bytes, tmp_path: Path) -> None:
    path = tmp_path / "shop.index"
    shutil.copytree(index.path, path)
    served = client(index=str(path), refresh_s=0.05)
    path.rename(tmp_path / "away")
    wait_until(lambda: served.get("/ready").status_code == 503 or served.post("/search", files={"photo": photo}))
    wait_until(lambda: "univert_index_refresh_failing 1.0" in served.get("/metrics").text)
    answer = served.post("/search", files={"photo": photo, "k": (None, "3")})
    ready = served.get("/ready").status_code
    assert (answer.status_code, ready) in {(200, 200), (503, 503)}
    for other in (served.post("/search", files={"like": (None, "p4-1")}), served.get("/items/p4-1")):
        assert other.status_code in (200, 503)
    (tmp_path / "away").rename(path)
    wait_until(lambda: served.get("/ready").status_code == 200)
    assert served.post("/search", files={"photo": photo}).status_code == 200


def test_accents_are_found_however_they_are_encoded(client: Client, index: Index, photo: bytes, tmp_path: Path) -> None:
    path = tmp_path / "shop.index"
    shutil.copytree(index.path, path)
    vectors = index.vectors(["p4-0", "p4-1"])
    composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    with IndexWriter.open(path) as writer:
        table = {"id": ["p4-0", "p4-1"], "vertical": [decomposed] * 2, "brand": [composed, decomposed]}
        writer.upsert(vectors, pa.table(table))
        writer.publish()
    served = client(index=str(path))
    for given in (composed, decomposed):
        for field in ("brand", "vertical"):
            answer = served.post("/search", files={"photo": photo}, data={field: given})
            assert {hit["id"] for hit in answer.json()["hits"]} == {"p4-0", "p4-1"}, answer.text


def test_a_calibration_is_taken_up_without_a_restart(
    client: Client, model: Embedder, photo: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "calibration.json"
    certain = AttributeCalibration(temperature=0.05, weights=(5.0, 0, 0, 0, 0), precision=0.95, threshold=0.5)
    made = Calibration(
        model_fingerprint=model.fingerprint, engine="onnx", neighbours=3, attributes={"vertical": certain}
    )
    made.save(path)
    served = client(calibration=str(path), refresh_s=0.02)

    def promised() -> Any:
        answer = served.post("/search", files={"photo": photo}).json()
        return answer["identity"]["vertical"]["known_precision"]

    assert promised() == 0.95
    dataclasses.replace(made, attributes={"vertical": dataclasses.replace(certain, precision=0.8)}).save(path)
    wait_until(lambda: promised() == 0.8)
    path.write_text("{")
    time.sleep(0.1)
    assert promised() == 0.8, "what cannot be used is passed over"


@pytest.mark.parametrize(
    ("settings", "host", "status"),
    [
        ({}, "evil.example", 421),
        ({}, "localhost.evil.example:8000", 421),
        ({}, "192.168.0.7", 421),
        ({}, "localhost:8000", 200),
        ({}, "[::1]:8000", 200),
        ({}, "127.0.0.2", 200),
        ({"host": "0.0.0.0"}, "shop.example", 200),
        ({"host": "0.0.0.0", "allowed_hosts": ["shop.example"]}, "evil.example", 421),
        ({"allowed_hosts": ["*.shop.example"]}, "www.shop.example:443", 200),
        ({"allowed_hosts": ["*.shop.example"]}, "shop.example", 421),
    ],
)
def test_only_hosts_of_the_service_are_answered(settings: dict[str, Any], host: str, status: int) -> None:
    app = create_app(Settings(model="m", index="i", **settings))
    answer = TestClient(app).get("/health", headers={"Host": host})
    assert answer.status_code == status
    if status == 421:
        assert "allowed_hosts" in answer.json()["detail"]
        assert TestClient(app).get("/", headers={"Host": host}).status_code == 421
