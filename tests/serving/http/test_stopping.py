"""SIGTERM and a published version: nothing that was accepted is lost."""

import json
import shutil
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa

from tests.serving.http.processes import Load, ServerProcess, serving, wait_until
from univert.models.embedder import Embedder
from univert.search.index import Index
from univert.search.writer import IndexWriter

CLIENTS = 8
REQUESTS = 60


def stop_under_load(server: ServerProcess, photo: bytes, answered_before: int = 0) -> None:
    loads = [Load(server, photo) for _ in range(CLIENTS)]
    for load in loads:
        load.start()
    wait_until(lambda: all(sum(load.outcomes.values()) > 2 for load in loads), 30)
    server.terminate()
    wait_until(lambda: server.events("draining"))
    status = server.request("GET", "/ready")
    assert status.status == 503
    assert status.json()["type"] == "/problems/not-ready"
    server.wait()
    for load in loads:
        load.join(20)
        assert not load.is_alive()
        assert load.errors == []
        assert set(load.outcomes) <= {"200", "not taken"}
    taken = Counter(line["status"] for line in server.events("request") if line["route"] == "/search")
    answered = answered_before + sum(load.outcomes["200"] for load in loads)
    assert taken == {200: answered}, "what was taken was answered"
    assert len(server.events("stopped")) == 2


def publish_over_and_over(
    path: Path, model: Embedder, enough: threading.Event, versions: list[int], pause_s: float
) -> None:
    """Version after version, each marked as a whole: every image's style is the number of the round."""
    with IndexWriter.open(path) as writer:
        ids = [f"p{product}-{copy}" for product in range(12) for copy in range(2)]
        vectors = np.stack([Index.open(path).vectors([name])[0] for name in ids])
        for number in range(1_000):
            table = pa.table({"id": ids, "vertical": ["bags", "shoes"] * 12, "style": [f"round {number}"] * len(ids)})
            writer.upsert(vectors, table)
            versions.append(writer.publish())
            if enough.wait(pause_s):
                return


def test_publishing_while_requests_come_and_stopping_while_they_do(
    model_folder: Path, index: Index, model: Embedder, photo: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "index"
    shutil.copytree(index.path, path)
    enough, published = threading.Event(), list[int]()
    seen: list[tuple[int, frozenset[str]]] = []

    def check(content: bytes) -> None:
        answer = json.loads(content)
        assert len(answer["hits"]) == 24
        seen.append((answer["index_version"], frozenset(hit["style"] for hit in answer["hits"])))

    with serving(model_folder, path, workers=2, refresh_s=0.1, drain_s=0.5, max_batch=2) as server:
        wait_until(lambda: len(server.events("ready")) == 2, 60)
        loads = [Load(server, photo, check) for _ in range(4)]
        writer = threading.Thread(target=publish_over_and_over, args=(path, model, enough, published, 0.2))
        for thread in (*loads, writer):
            thread.start()
        limit = time.monotonic() + 120
        while (len(seen) < REQUESTS or len(published) < 3) and time.monotonic() < limit:
            time.sleep(0.02)
        for load in loads:
            load.enough.set()
        for load in loads:
            load.join(20)
            assert load.errors == []
            assert set(load.outcomes) == {"200"}
        enough.set()
        writer.join(20)
        stop_under_load(server, photo, len(seen))
    assert len(seen) >= REQUESTS
    assert len(published) > 2
    versions = {version for version, _ in seen}
    assert len(versions) > 2, "the service picked up new versions"
    for version in versions:
        styles = {styles for other, styles in seen if other == version}
        assert len(styles) == 1, "one version, one content"
        assert len(*styles) == 1, "no answer mixes two versions"
