"""The HTTP contract, against a real process."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from tests.data.pictures import encoded
from tests.serving.http.processes import ServerProcess, wait_until
from tests.small_shop import PRODUCTS, picture
from univert.models.embedder import Embedder


def test_search_finds_the_photo_itself(server: ServerProcess, photo: bytes, model: Embedder) -> None:
    answer = server.search(photo, k="3")
    assert answer.status == 200
    found = answer.json()
    assert set(found) == {"query", "identity", "hits", "items", "index_version", "model", "detector", "took_ms"}
    unasked = dict.fromkeys(("box_xyxy_px", "like", "text", "words", "unknown", "known"))
    assert found["query"] == {"width_px": 48, "height_px": 40, **unasked}
    assert found["model"] == model.fingerprint
    assert len(found["hits"]) == 3
    first = found["hits"][0]
    assert (first["id"], first["vertical"], first["brand"]) == ("p4-1", "bags", "Maker & Sons")
    assert first["distance"] == pytest.approx(0, abs=1e-4)
    assert first["item"] == "/items/p4-1"
    assert first["thumbnail"] == "/items/p4-1/thumbnail"
    assert set(found["took_ms"]) == {"decode", "detect", "embed", "search", "identify", "total"}
    assert found["took_ms"]["total"] >= found["took_ms"]["embed"] > 0


def test_filters(server: ServerProcess, photo: bytes) -> None:
    everything = server.search(photo, k="100").json()["hits"]
    assert len(everything) == 2 * PRODUCTS
    shoes = server.search(photo, k="100", vertical="shoes").json()["hits"]
    assert {hit["vertical"] for hit in shoes} == {"shoes"}
    both = server.search(photo, k="100", vertical=["shoes", "bags"], brand="Maker & Sons").json()["hits"]
    assert len(both) == PRODUCTS
    unlabelled = server.search(photo, filter='{"product": null}').json()["hits"]
    assert {hit["id"] for hit in unlabelled} == {"p1-0", "p1-1"}
    nothing = server.search(photo, vertical="bags", brand="Maker & Sons", filter='{"id": "p3-1"}')
    assert (nothing.status, nothing.json()["hits"]) == (200, []), "each is there, both together are not"


def test_a_box_searches_with_a_part(server: ServerProcess) -> None:
    left, right = (Image.open(io.BytesIO(picture(product, 0))).convert("RGB") for product in (4, 6))
    both = Image.new("RGB", (96, 40))
    both.paste(left, (0, 0))
    both.paste(right, (48, 0))
    answer = server.search(encoded(both), box="48, 0,200,40", k="1").json()
    assert answer["query"]["box_xyxy_px"] == [48, 0, 96, 40]
    assert answer["hits"][0]["id"] == "p6-0"


@pytest.mark.parametrize("far", ["1e308", "100000"])
def test_a_box_that_reaches_outside_is_cut_before_the_photo_is_reduced(server: ServerProcess, far: str) -> None:
    across = np.linspace(0, 255, 1600, dtype=np.uint8)
    photo = encoded(np.stack([across] * 3, 1)[None].repeat(1200, 0), "JPEG", quality=95)

    def vector(box: str) -> list[float]:
        answer = server.request("POST", "/embed", photo=photo, fields={"box": box})
        assert answer.status == 200, answer.body
        found: list[float] = answer.json()["vector"]
        return found

    assert vector(f"1500,1100,{far},{far}") == vector("1500,1100,1600,1200")
    assert vector(f"-{far},-{far},{far},{far}") == vector("0,0,1600,1200")


def test_more_like_this(server: ServerProcess) -> None:
    answer = server.search(like="p4-1", k="5").json()
    assert answer["query"]["like"] == "p4-1"
    assert answer["identity"] is None
    assert len(answer["hits"]) == 5
    assert "p4-1" not in {hit["id"] for hit in answer["hits"]}
    assert answer["hits"][0]["id"] == "p4-0"
    assert server.search(like="nothing").status == 404


def test_embed(server: ServerProcess, photo: bytes, model: Embedder) -> None:
    answer = server.request("POST", "/embed", photo=photo).json()
    assert (answer["size"], answer["model"]) == (16, model.fingerprint)
    assert answer["vector"] == pytest.approx(model.embed([photo])[0].tolist(), abs=1e-4)


def test_items(server: ServerProcess) -> None:
    item = server.request("GET", "/items/p4-1").json()
    assert item["vertical"] == "bags"
    assert item["thumbnail"] == "/items/p4-1/thumbnail"
    assert "vector" not in item
    assert "image" not in item
    slashed = server.request("GET", "/items/a%2Fthumbnail").json()
    assert slashed["detail"] == "no item 'a/thumbnail' in the index"
    for path in ("/items/nobody", "/items/", "/items/a%2Fb", "/items/..%2F..%2Fetc%2Fpasswd", "/items/%00"):
        answer = server.request("GET", path)
        assert answer.status == 404, path
        assert answer.json()["type"] == "/problems/not-found"


def test_thumbnails(server: ServerProcess) -> None:
    answer = server.request("GET", "/items/p4-1/thumbnail?size_px=32")
    assert answer.headers["content-type"] == "image/webp"
    assert Image.open(io.BytesIO(answer.body)).size == (48, 40), "smaller pictures stay as they are"
    tag = answer.headers["etag"]
    tags = {
        server.request("GET", f"/items/p4-1/thumbnail?size_px={size}").headers["etag"] for size in range(32, 1025, 31)
    }
    assert len(tags) == 4, "few sizes are rendered, whatever is asked for"
    assert tag in tags
    again = server.request("GET", "/items/p4-1/thumbnail?size_px=32", headers={"If-None-Match": tag})
    assert (again.status, again.body) == (304, b"")
    boxed = server.request("GET", "/items/p3-1/thumbnail")
    assert Image.open(io.BytesIO(boxed.body)).size == (24, 40)
    assert server.request("GET", "/items/nobody/thumbnail").status == 404
    assert server.request("GET", "/items/p4-1/thumbnail?size_px=5000").status == 422


def test_verticals(server: ServerProcess) -> None:
    answer = server.request("GET", "/verticals").json()
    assert answer["images"] == 2 * PRODUCTS
    assert {entry["name"]: entry["images"] for entry in answer["verticals"]} == {"bags": PRODUCTS, "shoes": PRODUCTS}
    assert answer["brands"] == [{"name": "Maker & Sons", "images": PRODUCTS}]


def test_health_ready_and_request_ids(server: ServerProcess) -> None:
    assert server.request("GET", "/health").json() == {"status": "up"}
    assert server.request("GET", "/ready").json() == {"status": "ready"}
    mine = server.request("GET", "/verticals", headers={"X-Request-ID": "mine-1"})
    assert mine.headers["x-request-id"] == "mine-1"
    forged = server.request("GET", "/verticals", headers={"X-Request-ID": 'a"} {"level": "x'})
    assert len(forged.headers["x-request-id"]) == 16


@pytest.mark.parametrize(
    ("method", "path", "status", "name"),
    [
        ("GET", "/nothing", 404, "not-found"),
        ("GET", "/search", 405, "method-not-allowed"),
        ("POST", "/items/p4-1", 405, "method-not-allowed"),
        ("POST", "/search", 415, "unsupported-type"),
        ("GET", "/problems/nothing", 404, "not-found"),
        ("GET", "/static/../app.py", 404, "not-found"),
        ("GET", "/static/..%2fapp.py", 404, "not-found"),
        ("BREW", "/search", 405, "method-not-allowed"),
    ],
)
def test_errors_are_problem_details(server: ServerProcess, method: str, path: str, status: int, name: str) -> None:
    answer = server.request(method, path, body=b"" if method == "POST" else None)
    assert answer.status == status
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert set(problem) == {"type", "title", "status", "detail", "instance", "request_id"}
    assert problem["type"] == f"/problems/{name}"
    assert problem["status"] == status
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert server.request("GET", problem["type"]).status == 200


def test_security_headers_and_the_page(server: ServerProcess) -> None:
    page = server.request("GET", "/", headers={"Accept-Encoding": "gzip"})
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert page.headers["content-encoding"] == "gzip"
    for answer in (page, server.request("GET", "/verticals"), server.request("GET", "/nothing")):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert "access-control-allow-origin" not in answer.headers
        assert answer.headers["server"] == "univert"


def test_metrics(server: ServerProcess, photo: bytes) -> None:
    server.search(photo)
    text = server.request("GET", "/metrics").body.decode()
    pairs = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    found = {name: float(value) for name, value in pairs}
    assert found["univert_index_images"] == 2 * PRODUCTS
    assert found["univert_upload_bytes"] == 0
    assert found["univert_queue_depth"] == 0
    assert found["process_resident_memory_bytes"] > 0
    for stage in ("read", "decode", "embed", "search"):
        assert found[f'univert_stage_seconds_count{{stage="{stage}"}}'] >= 1
    assert found['univert_requests_total{method="POST",route="/search",status="200"}'] >= 1
    assert found["univert_batch_size_count"] >= 1


def test_head_is_get_without_the_body(server: ServerProcess) -> None:
    for path in (
        *["/", "/health", "/ready", "/verticals", "/metrics", "/openapi.json", "/items/p4-1"],
        "/items/p4-1/thumbnail",
    ):
        got, answer = server.request("GET", path), server.request("HEAD", path)
        assert (answer.status, answer.body) == (got.status, b""), path
        assert answer.headers["content-type"] == got.headers["content-type"], path
    assert server.request("HEAD", "/search").status == 405


def test_logs_are_json_with_request_ids_and_without_the_clients_words(server: ServerProcess, photo: bytes) -> None:
    server.request(
        "POST",
        "/search",
        photo=photo,
        fields={"filter": '{"id": "a secret wish"}'},
        headers={"X-Request-ID": "to-be-logged"},
    )
    wait_until(lambda: any(line.get("request_id") == "to-be-logged" for line in server.lines))
    (line,) = [line for line in server.lines if line.get("request_id") == "to-be-logged"]
    assert (line["event"], line["route"], line["status"]) == ("request", "/search", 200)
    assert line["index_version"] >= 1
    assert set(line["stages_ms"]) >= {"read", "decode", "embed", "search"}
    assert [entry["event"] for entry in server.lines if entry.get("unstructured")] == []
    assert "secret" not in json.dumps(server.lines)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/search?k=3"),
        ("POST", "/embed?box=1,2,3,4"),
        ("GET", "/items/p4-1?size_px=64"),
        ("GET", "/items/p4-1/thumbnail?size=64"),
        ("GET", "/verticals?limit=3"),
    ],
)
def test_parameters_that_a_route_does_not_have_are_errors(
    server: ServerProcess, photo: bytes, method: str, path: str
) -> None:
    answer = server.request(method, path, photo=photo if method == "POST" else None)
    assert answer.status == 422
    assert answer.json()["type"] == "/problems/validation"
    assert path.partition("?")[2].partition("=")[0] in answer.json()["detail"]
