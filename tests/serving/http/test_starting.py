"""Starting: what is wrong stays wrong, what is away may come back, and a model is exported once for all workers."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pytest
import uvicorn

from tests.serving.http.processes import COMMAND, serving, wait_until
from tests.serving.served import Client
from univert.models.embedder import Embedder
from univert.models.runtime.onnx_export import export_onnx
from univert.search import storage
from univert.search.index import Index
from univert.search.writer import IndexWriter
from univert.serving.app import create_app
from univert.serving.settings import Settings
from univert.serving.startup import StartupStatus

AWAY = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
IN_A_STORE = "s3://bucket/shop.index"


def start_in_this_process(model: Path, index: str) -> StartupStatus:
    config = uvicorn.Config(create_app(Settings(model=str(model), index=index)), lifespan="on", log_config=None)
    config.load()
    status = StartupStatus(config)
    asyncio.run(status.startup())
    return status


def test_a_store_that_is_away_may_come_back(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in AWAY.items():
        monkeypatch.setenv(name, value)
    options = storage._storage_options
    monkeypatch.setattr(storage, "_storage_options", lambda given: {**options(given), "client_max_retries": "0"})
    with pytest.raises(SystemExit) as ended:
        start_in_this_process(model_folder, IN_A_STORE)
    assert ended.value.code == 1


def test_a_wrong_index_stays_wrong(model_folder: Path, tmp_path: Path) -> None:
    assert start_in_this_process(model_folder, str(tmp_path / "nowhere")).should_exit


def start(model: Path, index: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, str(model), index, "--port", "0"],
        env={**os.environ, "OMP_NUM_THREADS": "1", **variables},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("index", "workers", "status", "said"),
    [("nowhere", 1, 2, "no such index"), ("nowhere", 2, 2, "no such index"), (IN_A_STORE, 1, 1, "cannot be read")],
)
def test_the_exit_status(model_folder: Path, index: str, workers: int, status: int, said: str) -> None:
    ended = start(model_folder, index, UNIVERT_WORKERS=str(workers), **AWAY)
    assert ended.returncode == status
    assert said in ended.stdout


@pytest.mark.slow
def test_workers_try_again_until_the_store_is_there(model_folder: Path) -> None:
    command = [*COMMAND, str(model_folder), IN_A_STORE, "--port", "0", "--workers", "2"]
    process = subprocess.Popen(
        command, env={**os.environ, **AWAY}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "a worker ended" in line:
            break
    assert process.poll() is None
    process.terminate()
    process.stdout.read()
    process.stdout.close()
    assert process.wait(30) == 0


@pytest.mark.slow
def test_workers_serve_an_exported_model_without_pytorch(model: Embedder, index: Index, tmp_path: Path) -> None:
    folder = model.save_pretrained(tmp_path / "model")
    export_onnx(folder)
    with serving(folder, index.path, workers=2) as server:
        wait_until(lambda: len(server.events("ready")) == 2, 60)
        assert [line["engine"] for line in server.events("ready")] == ["onnx", "onnx"]
        for line in server.events("ready"):
            mapped = {Path(region.path).name for region in psutil.Process(line["process"]).memory_maps()}
            assert not any(name.startswith("libtorch") for name in mapped)


def values(text: str) -> dict[str, float]:
    lines = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, value in lines}


def test_what_another_model_publishes_is_passed_over(client: Client, index: Index, tmp_path: Path) -> None:
    path = tmp_path / "index"
    shutil.copytree(index.path, path)
    served = client(index=str(path), refresh_s=0.05)
    before: Any = served.get("/verticals").json()
    with IndexWriter.open(path) as writer:
        writer.start_over(size=16, model_fingerprint="another")
        writer.upsert(np.eye(1, 16, dtype=np.float32), pa.table({"id": ["a"], "vertical": ["v"]}))
        writer.finish_rebuilding()
        writer.publish()

    def failing() -> bool:
        return values(served.get("/metrics").text)["univert_index_refresh_failing"] == 1

    wait_until(failing)
    assert served.get("/ready").status_code == 200
    assert served.get("/verticals").json() == before
    answer = served.post("/search", files={"like": (None, "p4-1"), "k": (None, "3")})
    assert (answer.status_code, len(answer.json()["hits"])) == (200, 3)
    assert answer.json()["index_version"] == before["index_version"]
