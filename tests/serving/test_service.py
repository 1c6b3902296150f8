"""What the service does beside its answers, seen from within: whose turn it is, what it takes up, what it notices."""

from __future__ import annotations

import io
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.serving.http.processes import wait_until
from tests.serving.served import Client
from univert.search.index import Index
from univert.serving import service


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
    (tmp_path / "away").rename(path)
    wait_until(lambda: served.get("/ready").status_code == 200)
    assert served.post("/search", files={"photo": photo}).status_code == 200
