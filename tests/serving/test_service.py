"""What the service does beside its answers, seen from within: whose turn it is, what it takes up, what it notices."""

import dataclasses
import shutil
import threading
import time
import tracemalloc
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from PIL import Image
from starlette.testclient import TestClient

from tests.data.pictures import encoded
from tests.serving.http.processes import wait_until
from tests.serving.served import Client
from univert.identity.vote import AttributeCalibration, Calibration
from univert.models.embedder import Embedder
from univert.search.index import Index
from univert.search.writer import IndexWriter
from univert.serving import photos, thumbnails
from univert.serving.app import create_app
from univert.serving.limits import client_network
from univert.serving.settings import Settings


@pytest.fixture
def decoding(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How many photos and pictures are being decoded, and the most that ever were."""
    counted, lock = {"now": 0, "most": 0}, threading.Lock()

    def watch(owner: Any, name: str) -> None:
        decode = getattr(owner, name)

        def watched(*given: Any, **options: Any) -> Image.Image:
            with lock:
                counted["now"] += 1
                counted["most"] = max(counted.values())
            try:
                return decode(*given, **options)
            finally:
                with lock:
                    counted["now"] -= 1

        monkeypatch.setattr(owner, name, watched)

    watch(photos.ImageParts, "part")
    watch(thumbnails, "decode_rgb")
    return counted


@pytest.fixture(scope="module")
def large_png() -> bytes:
    return encoded(Image.new("RGB", (3000, 2600)), compress_level=1)


def test_large_photos_are_decoded_one_at_a_time_even_when_nobody_waits_any_more(
    client: Client, decoding: dict[str, int], large_png: bytes
) -> None:
    served = client(request_deadline_s=0.05)
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: served.post("/embed", files={"photo": large_png}), range(6)))
    assert {answer.status_code for answer in answers} == {504}
    assert decoding["most"] == 1
    wait_until(lambda: decoding["now"] == 0)


def test_large_pictures_are_made_thumbnails_of_one_at_a_time(
    client: Client, index: Index, decoding: dict[str, int], large_png: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "shop.index"
    shutil.copytree(index.path, path)
    names = [f"large {number}" for number in range(4)]
    with IndexWriter.open(path) as writer:
        table = {"id": names, "vertical": ["bags"] * 4, "image": [large_png] * 4}
        writer.upsert(index.vectors(["p4-0"] * 4), pa.table(table))
        writer.publish()
    served = client(index=str(path))
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda name: served.get(f"/items/{name}/thumbnail"), names))
    assert {answer.status_code for answer in answers} == {200}
    assert decoding["most"] == 1


def test_an_index_that_is_away_is_searched_all_the_same(
    client: Client, index: Index, photo: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "shop.index"
    shutil.copytree(index.path, path)
    served = client(index=str(path), refresh_s=0.05)
    path.rename(tmp_path / "away")
    wait_until(lambda: "univert_index_refresh_failing 1.0" in served.get("/metrics").text)
    for asked in ({"photo": photo}, {"like": (None, "p4-1")}, {"photo": photo, "brand": (None, "Maker & Sons")}):
        assert len(served.post("/search", files=asked).json()["hits"]) >= 12
    for path_asked in ("/ready", "/verticals", "/items/p4-1"):
        assert served.get(path_asked).status_code == 200
    picture = served.get("/items/p4-1/thumbnail")
    assert (picture.status_code, picture.json()["type"]) == (503, "/problems/not-ready"), "pictures stay on disk"
    assert [one.exc_info for one in caplog.records if one.message == "the index cannot be read"] == [False]
    (tmp_path / "away").rename(path)
    wait_until(lambda: "univert_index_refresh_failing 0.0" in served.get("/metrics").text)
    assert served.get("/items/p4-1/thumbnail").status_code == 200


def test_long_names_of_hosts_and_clients_do_not_stay_in_memory() -> None:
    asking = TestClient(create_app(Settings(model="m", index="i")))
    tracemalloc.start()
    try:
        for number in range(20):
            long = f"{number}{'x' * 100_000}"
            assert asking.get("/health", headers={"Host": long}).status_code == 421
            assert client_network(long) == long
        assert tracemalloc.get_traced_memory()[0] < 1_000_000
    finally:
        tracemalloc.stop()


def test_whatever_the_storage_meets_is_told_as_an_index_that_cannot_be_read(
    client: Client, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index.__class__, "pictures", lambda *_: {}["a file that another index left"])
    assert client().get("/items/p4-1/thumbnail").status_code == 503


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

    def asked(**fields: str) -> Any:
        return served.post("/search", files={"photo": photo}, data=fields).json()

    def promised() -> Any:
        return asked()["identity"]["vertical"]["known_precision"]

    answer = asked(k="1")
    assert len(answer["hits"]) == 1
    bags = {"value": "bags", "known": True, "known_precision": 0.95, "known_threshold": 0.5}
    assert answer["identity"]["vertical"].items() >= bags.items()
    never = {"value": None, "confidence": 0.0, "known": False, "known_precision": None, "known_threshold": None}
    assert answer["identity"]["product"] == never
    assert answer["identity"]["evidence"][0]["id"] == "p4-1"
    shoes = asked(vertical="shoes")
    assert {hit["vertical"] for hit in shoes["hits"]} == {"shoes"}
    assert shoes["identity"] == answer["identity"], "a filter narrows what is shown, not what it is"
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
        ({}, "[::1]evil", 421),
        ({}, "[::1]:8000.evil", 421),
        ({}, "::1", 421),
        ({}, "localhost:evil", 421),
        ({"host": "0.0.0.0"}, "x" * 256, 421),
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


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("fe80::1%eth0", "fe80::2", True),
        ("::ffff:203.0.113.7", "203.0.113.7", True),
        ("203.0.113.7", "203.0.113.8", False),
        ("testclient", "another", False),
    ],
)
def test_an_address_belongs_to_its_network(one: str, other: str, same: bool) -> None:
    assert (client_network(one) == client_network(other)) is same
