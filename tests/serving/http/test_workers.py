"""Several workers: what they share, when one is killed or all are stopped, many connections, versions that come."""

import contextlib
import json
import os
import resource
import shutil
import signal
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pytest

from tests.serving.http.processes import Load, ServerProcess, serving, wait_until
from univert.search.index import Index
from univert.search.writer import IndexWriter
from univert.serving.server import free_port

CLIENTS = 6
RATE = {"rate_per_s": 0.001, "rate_burst": 40}


@pytest.fixture(scope="module")
def path(index: Index, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the index, to publish in."""
    return Path(shutil.copytree(index.path, tmp_path_factory.mktemp("index") / "index"))


@pytest.fixture(scope="module")
def workers(model_folder: Path, path: Path) -> Iterator[ServerProcess]:
    with serving(model_folder, path, workers=2, drain_s=0.5, idle_s=60, refresh_s=0.1, max_batch=2) as server:
        wait_until(lambda: len(server.events("ready")) == 2, 60)
        yield server


@contextlib.contextmanager
def clients(server: ServerProcess, photo: bytes) -> Iterator[list[Load]]:
    asking = [Load(server, photo, name=f"client-{number}", connects_again=True) for number in range(CLIENTS)]
    for client in asking:
        client.start()
    try:
        wait_until(lambda: all(client.outcomes["200"] > 2 for client in asking), 30)
        yield asking
    finally:
        for client in asking:
            client.enough.set()
        for client in asking:
            client.join(30)


def test_a_thousand_connections_that_say_nothing_keep_nobody_out(workers: ServerProcess, photo: bytes) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    with contextlib.ExitStack() as opened, clients(workers, photo) as asking:
        for number in range(1000):
            connection = opened.enter_context(socket.create_connection(("127.0.0.1", workers.port)))
            connection.sendall(b"GET /health HT" if number % 2 else b"")
        answered = [client.outcomes["200"] for client in asking]
        wait_until(lambda: all(c.outcomes["200"] > n for c, n in zip(asking, answered, strict=True)))
        wait_until(lambda: b"univert_connections 10" in workers.request("GET", "/metrics").body)
        assert workers.events("many connections")
    for client in asking:
        assert set(client.outcomes) == {"200"}
        assert client.errors == []


def test_workers_share_new_connections_evenly(workers: ServerProcess) -> None:
    asked = 200  # by chance alone, 70 : 30 is more than five standard deviations away
    for _ in range(asked):
        assert workers.request("GET", "/verticals").status == 200
    wait_until(lambda: sum(line["route"] == "/verticals" for line in workers.events("request")) == asked)
    shares = Counter(line["process"] for line in workers.events("request") if line["route"] == "/verticals")
    assert len(shares) == 2
    assert min(shares.values()) >= 0.3 * asked, shares


def test_a_killed_worker_is_replaced_under_load(workers: ServerProcess, photo: bytes) -> None:
    with clients(workers, photo) as asking:
        last = {line["request_id"]: line["process"] for line in workers.events("request")}
        victim = last["client-0"]
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: len(workers.events("ready")) == 3, 20)
        answered = [client.outcomes["200"] for client in asking]
        wait_until(lambda: all(c.outcomes["200"] > n for c, n in zip(asking, answered, strict=True)))
    for client in asking:
        assert set(client.outcomes) <= {"200", "not taken"}
        # a connection that waited to be accepted by the dead worker is lost, too
        assert client.outcomes["not taken"] <= 2 * (last[client.name] == victim), (
            "only what the dead worker held is lost"
        )
    assert any("Unexpected exit" in line["event"] for line in workers.lines)
    metrics = workers.request("GET", "/metrics").body
    assert b"univert_requests_in_flight 1.0" in metrics, "the gauges of the dead worker are gone"


def test_workers_share_rate_and_counts_and_end_with_their_first_process(
    model_folder: Path, index: Index, photo: bytes
) -> None:
    with serving(model_folder, index.path, workers=2, drain_s=0, **RATE) as server:
        wait_until(lambda: len(server.events("ready")) == 2, 60)
        answers = [server.search(photo, k="1") for _ in range(41)]
        assert Counter(answer.status for answer in answers) == {200: 40, 429: 1}
        assert int(answers[-1].headers["retry-after"]) > 100
        assert len({line["process"] for line in server.events("request")}) == 2
        counted = server.request("GET", "/metrics").body
        assert b'univert_requests_total{method="POST",route="/search",status="200"} 40.0' in counted
        assert b"univert_requests_in_flight 1.0" in counted
        assert counted.count(b"process_resident_memory_bytes{process=") == 2
        children = psutil.Process(server.process.pid).children(recursive=True)
        server.process.kill()
        _, left = psutil.wait_procs(children, timeout=15)
        assert left == []
        assert free_port("127.0.0.1", server.port) == server.port


def publish_over_and_over(path: Path, enough: threading.Event, versions: list[int]) -> None:
    """Version after version, each marked as a whole: every image's style is the number of the round."""
    with IndexWriter.open(path) as writer:
        ids = [f"p{product}-{copy}" for product in range(12) for copy in range(2)]
        vectors = np.stack([Index.open(path).vectors([name])[0] for name in ids])
        while not enough.wait(0.2):
            styles = [f"round {len(versions)}"] * len(ids)
            writer.upsert(vectors, pa.table({"id": ids, "vertical": ["bags", "shoes"] * 12, "style": styles}))
            versions.append(writer.publish())


def test_publishing_while_requests_come_and_stopping_while_they_do(
    workers: ServerProcess, path: Path, photo: bytes
) -> None:
    """The last test with these workers."""
    enough, published = threading.Event(), list[int]()
    seen: list[tuple[int, frozenset[str]]] = []

    def check(content: bytes) -> None:
        answer = json.loads(content)
        assert len(answer["hits"]) == 24
        seen.append((answer["index_version"], frozenset(hit["style"] for hit in answer["hits"])))

    writer = threading.Thread(target=publish_over_and_over, args=(path, enough, published))
    loads = [Load(workers, photo, check, name="asking") for _ in range(4)]
    for thread in (writer, *loads):
        thread.start()
    wait_until(lambda: len(seen) >= 60 and len(published) > 2 and len({version for version, _ in seen}) > 2, 60)
    enough.set()
    writer.join(20)
    workers.terminate()
    wait_until(lambda: workers.events("draining"))
    status = workers.request("GET", "/ready")
    assert status.status == 503
    assert status.json()["type"] == "/problems/not-ready"
    assert workers.wait() == 0
    for load in loads:
        load.join(20)
        assert not load.is_alive()
        assert load.errors == []
        assert set(load.outcomes) <= {"200", "not taken"}
    taken = Counter(line["status"] for line in workers.events("request") if line["request_id"] == "asking")
    assert taken == {200: len(seen)}, "what was taken was answered"
    assert len(workers.events("stopped")) == 2
    for version in {version for version, _ in seen}:
        styles = {styles for other, styles in seen if other == version}
        assert len(styles) == 1, "one version, one content"
        assert len(*styles) == 1, "no answer mixes two versions"
