"""Keys, rates, CORS, queues, deadlines and failures: applications in this process, each with settings of its own."""

import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from tests.serving.served import Client
from univert.serving.app import create_app
from univert.serving.limits import new_key
from univert.serving.settings import Settings

SECRET, LINE = new_key("shop")


def ask(client: TestClient, photo: bytes, **headers: str) -> Any:
    return client.post("/search", files={"photo": ("a.png", photo)}, data={"k": "1"}, headers=headers)


def loaded(client: TestClient) -> Any:
    return client.app.state.service.loaded  # type: ignore[attr-defined]


def test_api_keys(client: Client, photo: bytes) -> None:
    with_keys = client(api_keys=(LINE, new_key("other")[1]))
    for headers in ({}, {"X-API-Key": "wrong"}, {"Authorization": "Basic abc"}, {"X-API-Key": ""}):
        answer = ask(with_keys, photo, **headers)
        assert answer.status_code == 401
        assert answer.json()["type"] == "/problems/unauthorised"
        assert answer.headers["www-authenticate"] == "Bearer"
    assert ask(with_keys, photo, **{"X-API-Key": SECRET}).status_code == 200
    assert ask(with_keys, photo, Authorization=f"Bearer {SECRET}").status_code == 200
    for path in ("/verticals", "/items/p4-1", "/items/p4-1/thumbnail", "/metrics"):
        assert with_keys.get(path).status_code == 401, path
        assert with_keys.get(path, headers={"X-API-Key": SECRET}).status_code == 200, path
    for path in ("/", "/health", "/ready", "/openapi.json", "/problems/overloaded"):
        assert with_keys.get(path).status_code == 200, path
    assert "X-API-Key" in with_keys.get("/openapi.json").text
    thumbnail = with_keys.get("/items/p4-1/thumbnail", headers={"X-API-Key": SECRET})
    assert thumbnail.headers["cache-control"].startswith("private")


def test_what_is_refused_is_counted_under_its_route(client: Client, photo: bytes) -> None:
    keyed = client(api_keys=(LINE,))
    keyed.post("/search", files={"photo": photo})
    keyed.get("/items/p4-1/thumbnail")
    keyed.get("/nowhere/else")
    keyed.get("/openapi.json")
    text = keyed.get("/metrics", headers={"X-API-Key": SECRET}).text
    for route, status in {"/search": 401, "/items/{id:path}/thumbnail": 401, "other": 200}.items():
        assert re.search(rf'univert_requests_total{{.*route="{re.escape(route)}",status="{status}"}} 1', text)
    assert "nowhere" not in text


def test_rates_are_kept_for_each_key(client: Client, photo: bytes) -> None:
    second, line = new_key("second")
    limited = client(api_keys=(LINE, line), rate_per_s=0.01, rate_burst=2)
    answers = [ask(limited, photo, **{"X-API-Key": SECRET}) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert 90 < int(answers[2].headers["retry-after"]) <= 100
    assert answers[2].json()["type"] == "/problems/rate-limited"
    assert ask(limited, photo, **{"X-API-Key": second}).status_code == 200
    assert limited.get("/health").status_code == 200


def test_thumbnails_cost_what_their_rendering_does(client: Client) -> None:
    limited = client(rate_per_s=0.001, rate_burst=2)
    for name in ("p4-1", "p4-0"):
        assert limited.get(f"/items/{name}/thumbnail?size_px=1024").status_code == 200
    for _ in range(5):
        kept = limited.get("/items/p4-1/thumbnail?size_px=700")
        assert kept.status_code == 200, "what is kept is free"
        tag = {"If-None-Match": kept.headers["etag"]}
        assert limited.get("/items/p4-1/thumbnail?size_px=900", headers=tag).status_code == 304
    refused = limited.get("/items/p4-1/thumbnail")
    assert refused.status_code == 429
    assert refused.json()["type"] == "/problems/rate-limited"
    assert limited.get("/items/a%2Fthumbnail").status_code == 429, "an item, and no thumbnail"


def test_pages_from_elsewhere(client: Client) -> None:
    """Off unless an origin is named; a browser may read refusals as well as answers."""
    shop, elsewhere = {"Origin": "https://shop.example"}, {"Origin": "https://elsewhere.example"}
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "X-API-Key"}
    closed = client()
    assert "access-control-allow-origin" not in closed.get("/verticals", headers=shop).headers
    assert closed.options("/search", headers=shop | asked).status_code == 405
    opened = client(
        cors_origins=("https://shop.example",), api_keys=(LINE,), rate_per_s=0.01, rate_burst=1, requests_at_once=1
    )
    assert opened.options("/search", headers=shop | asked).status_code == 200
    assert opened.options("/search", headers=elsewhere | asked).status_code == 400
    key = {"X-API-Key": SECRET}
    answers = [opened.get("/verticals", headers=shop), *(opened.get("/verticals", headers=shop | key) for _ in "ab")]
    assert [answer.status_code for answer in answers] == [401, 200, 429]
    for answer in answers:
        assert answer.headers["access-control-allow-origin"] == "https://shop.example"
        assert "Retry-After" in answer.headers["access-control-expose-headers"]
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert "access-control-allow-origin" not in opened.get("/verticals", headers=elsewhere).headers


def test_a_full_queue_says_when_to_come_back(client: Client, photo: bytes) -> None:
    narrow = client(queue_size=1, max_batch=1)
    go_on, run = threading.Event(), loaded(narrow).batcher._run

    def slow(batch: np.ndarray) -> np.ndarray:
        go_on.wait(10)
        result: np.ndarray = run(batch)
        return result

    loaded(narrow).batcher._run = slow
    with ThreadPoolExecutor(6) as pool:
        asked = [pool.submit(ask, narrow, photo) for _ in range(6)]
        time.sleep(0.5)
        go_on.set()
        answers = [future.result() for future in asked]
    statuses = sorted(answer.status_code for answer in answers)
    assert statuses == [200, 200, 503, 503, 503, 503]
    refused = next(answer for answer in answers if answer.status_code == 503)
    assert refused.json()["type"] == "/problems/overloaded"
    assert int(refused.headers["retry-after"]) >= 1


@pytest.mark.parametrize("stage", ["network", "search"])
def test_the_deadline_of_a_request(client: Client, photo: bytes, stage: str) -> None:
    hasty = client(request_deadline_s=0.2)
    answering = loaded(hasty)
    if stage == "network":
        run = answering.batcher._run
        answering.batcher._run = lambda batch: (time.sleep(0.5), run(batch))[1]
    else:
        search = answering.searches._search
        answering.searches._search = lambda *given: (time.sleep(0.5), search(*given))[1]
    answer = ask(hasty, photo)
    assert answer.status_code == 504
    assert answer.json()["type"] == "/problems/deadline"


def test_a_failure_of_our_own_tells_no_secrets(client: Client, photo: bytes, caplog: pytest.LogCaptureFixture) -> None:
    broken = client()

    def fail(*_: object) -> None:
        raise TypeError("the password is hunter2")

    loaded(broken).searches._search = fail
    answer = ask(broken, photo)
    assert answer.status_code == 500
    problem = answer.json()
    assert problem["type"] == "/problems/internal"
    assert "hunter2" not in answer.text
    assert answer.headers["x-content-type-options"] == "nosniff"
    (line,) = [record for record in caplog.records if record.getMessage() == "failed"]
    assert line.fields["request_id"] == problem["request_id"]  # type: ignore[attr-defined]
    assert "hunter2" in str(line.exc_info[1])  # type: ignore[index]


def test_not_ready_before_it_is_loaded(model_folder: Any, index: Any, photo: bytes) -> None:
    settings = Settings(model=str(model_folder), index=str(index.path))
    unstarted = TestClient(create_app(settings), base_url="http://localhost", raise_server_exceptions=False)
    for answer in (unstarted.get("/ready"), ask(unstarted, photo), unstarted.get("/verticals")):
        assert answer.status_code == 503
        assert answer.json()["type"] == "/problems/not-ready"
        assert answer.headers["retry-after"] == "1"
    assert unstarted.get("/health").status_code == 200
