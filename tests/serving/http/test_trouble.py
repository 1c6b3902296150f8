"""What may befall a machine: a full disk, a worker that hangs, a log that nobody reads, many connections."""

import contextlib
import os
import resource
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from tests.serving.http.processes import COMMAND, serving, wait_until
from univert.search.index import Index
from univert.serving.shared import make_rate_file

TROUBLE = """
import asyncio, os, resource, signal, time
resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))
signal.signal(signal.SIGUSR1, lambda *_: time.sleep(600))

def occupy_threads(*_):
    loop = asyncio.get_running_loop()
    for _ in range(min(32, (os.cpu_count() or 1) + 4)):
        loop.run_in_executor(None, time.sleep, 4.5)

signal.signal(signal.SIGUSR2, occupy_threads)
"""
"""A process that imports this cannot write long files, and its event loop or its threads stand still when told to."""


def test_a_full_disk_costs_the_counts_alone_and_a_worker_that_hangs_is_replaced(
    model_folder: Path, index: Index, photo: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(TROUBLE)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    limits = {"workers": 2, "drain_s": 0, "request_deadline_s": 1, "rate_per_s": 1000}
    with serving(model_folder, index.path, **limits) as server:
        wait_until(lambda: len(server.events("ready")) == 2, 60)
        assert len(server.events("no room for the counts: a scrape shows one worker alone")) == 2
        assert server.search(photo).status == 200
        assert server.request("GET", "/metrics").status == 200
        hung, busy = (line["process"] for line in server.events("ready"))
        os.kill(busy, signal.SIGUSR2)
        time.sleep(1)
        os.kill(hung, signal.SIGUSR1)
        wait_until(lambda: len(server.events("ready")) == 3, 40)
        assert hung not in {line["process"] for line in server.events("ready")[1:]}
        ended = [line for line in server.lines if line["event"].startswith("Timeout (")]
        assert len(ended) == 1, "a worker whose threads are busy does not hang"
        assert {server.search(photo).status for _ in range(8)} == {200}


def test_a_file_that_the_disk_has_no_room_for_is_not_begun(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            make_rate_file(tmp_path / "rates")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_log_that_nobody_reads_holds_up_neither_requests_nor_the_end(
    model_folder: Path, index: Index, photo: bytes
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [*COMMAND, str(model_folder), str(index.path), "--port", str(port)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, pipesize=4096, env={**os.environ, "UNIVERT_DRAIN_S": "0"}
    )

    def ask() -> bool:
        with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), 10) as asking:
            long = b"X-Request-ID: " + b"x" * 64 + b"\r\n"
            asking.sendall(b"GET /nothing HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" + long + b"\r\n")
            return asking.recv(100).startswith(b"HTTP/1.1 404")
        return False

    try:
        wait_until(ask, 60)
        assert all(ask() for _ in range(60)), "more lines than the pipe holds"
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) is not None
    finally:
        process.kill()
        process.communicate()
