"""Workers that are killed, hang or lose their first process; addresses that cannot be had."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
import uvicorn

from tests.serving.http.processes import COMMAND, ServerProcess, multipart, serving, wait_until
from univert.core.errors import BadInputError, UnivertError
from univert.search.index import Index
from univert.serving import workers
from univert.serving.listening import bind
from univert.serving.metrics import forget_dead_workers

CLIENTS = 6
REPLACED_S = 15  # under load on two cores; alone it takes two seconds


class Client(threading.Thread):
    """Asks on and on over one connection, under its own name; connects again where it breaks."""

    def __init__(self, server: ServerProcess, name: str, photo: bytes, enough: threading.Event) -> None:
        super().__init__(daemon=True, name=name)
        self.server, self.enough = server, enough
        self.body, self.kind = multipart(photo, {"k": "3"})
        self.statuses: list[int] = []
        self.broken: list[float] = []

    def run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=30)
        headers = {"Content-Type": self.kind, "X-Request-ID": self.name}
        with contextlib.closing(connection):
            while not self.enough.is_set():
                try:
                    connection.request("POST", "/search", body=self.body, headers=headers)
                    answer = connection.getresponse()
                    answer.read()
                    self.statuses.append(answer.status)
                except (ConnectionError, http.client.HTTPException):
                    self.broken.append(time.monotonic())
                    connection.close()


@contextlib.contextmanager
def clients(server: ServerProcess, photo: bytes) -> Iterator[list[Client]]:
    enough = threading.Event()
    asking = [Client(server, f"client-{number}", photo, enough) for number in range(CLIENTS)]
    for client in asking:
        client.start()
    try:
        wait_until(lambda: all(len(client.statuses) > 2 for client in asking), 30)
        yield asking
    finally:
        enough.set()
        for client in asking:
            client.join(30)


def servers_of(server: ServerProcess) -> dict[str, int]:
    """Which worker answered each client last."""
    return {line["request_id"]: line["process"] for line in server.events("request")}


def test_a_killed_worker_is_replaced_under_load_and_the_service_still_stops(
    model_folder: Path, index: Index, photo: bytes
) -> None:
    with serving(model_folder, index.path, workers=2, drain_s=0.3) as server:
        wait_until(lambda: len(server.events("ready")) == 2, 60)
        with clients(server, photo) as asking:
            last = servers_of(server)
            victim = last["client-0"]
            os.kill(victim, signal.SIGKILL)
            wait_until(lambda: len(server.events("ready")) == 3, REPLACED_S)
            answered = [len(client.statuses) for client in asking]
            wait_until(lambda: all(len(c.statuses) > n for c, n in zip(asking, answered, strict=True)))
        for client in asking:
            assert set(client.statuses) == {200}
            assert len(client.broken) <= (last[client.name] == victim), "only what the dead worker held is lost"
        died = server.events("a worker ended")
        assert [(line["worker"], line["status"]) for line in died] == [(victim, -signal.SIGKILL)]
        assert b"univert_requests_in_flight 1.0" in server.request("GET", "/metrics").body

        with clients(server, photo):
            os.kill(servers_of(server)["client-0"], signal.SIGKILL)
            told = time.monotonic()
            server.terminate()
            wait_until(lambda: server.process.poll() is not None, 10)
        assert server.wait() == 0
        assert time.monotonic() - told < 10


def test_workers_that_lose_their_first_process_answer_what_they_took_and_free_the_port() -> None:
    with bind("127.0.0.1", 0) as found:
        port = found.getsockname()[1]
    command = [sys.executable, "-m", "tests.serving.http.bare_service", str(port)]
    first = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}/?"
    try:
        wait_until(lambda: answers(address + "0"))
        children = psutil.Process(first.pid).children(recursive=True)
        with ThreadPoolExecutor() as pool:
            taken = [pool.submit(answers, address + "1") for _ in range(4)]
            time.sleep(0.5)
            first.kill()
            assert all(request.result() for request in taken)
        _, left = psutil.wait_procs(children, timeout=5)
        assert left == []
        bind("127.0.0.1", port).close()
    finally:
        first.kill()
        first.wait()


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=10) as answer:
            return bool(answer.read() == b"done")
    except OSError:
        return False


def test_a_worker_that_hangs_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "SILENT_S", 0.4)
    listener = bind("127.0.0.1", 0)
    worker = workers.Worker(uvicorn.Config("no.such:application", log_level="critical"), listener)
    try:
        worker.tell(signal.SIGSTOP)
        assert not worker.hangs()
        wait_until(worker.hangs)
        assert not worker.is_replaceable()
        worker.wait(0)
        assert worker.exit_status == -signal.SIGKILL
        assert not worker.hangs(), "it is dead"
        assert not worker.is_replaceable(), "it never served: not at once"
        monkeypatch.setattr(workers, "RETRY_S", 0)
        assert worker.is_replaceable()
    finally:
        worker.tell(signal.SIGKILL)
        worker.wait(1)
        listener.close()


def test_gauges_of_a_killed_worker_go_before_its_parent_has_seen_its_end(tmp_path: Path) -> None:
    dead = subprocess.Popen(["true"])
    wait_until(lambda: psutil.Process(dead.pid).status() == psutil.STATUS_ZOMBIE)
    for pid in (dead.pid, os.getpid()):
        (tmp_path / f"gauge_livesum_{pid}.db").touch()
    forget_dead_workers(tmp_path)
    dead.wait()
    assert [file.name for file in tmp_path.iterdir()] == [f"gauge_livesum_{os.getpid()}.db"]


def test_an_address_that_cannot_be_had_is_named_and_says_whether_to_try_again(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(UnivertError, match=rf"^127.0.0.1:{port} is in use .* another --port") as passing:
            bind("127.0.0.1", port)
        assert passing.value.exit_code == 1
        done = subprocess.run(
            [*COMMAND, str(tmp_path), str(tmp_path), "--port", str(port)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 1
        assert f"univert: 127.0.0.1:{port} is in use" in done.stderr
    for host in ("203.0.113.1", "no such host"):
        with pytest.raises(BadInputError, match=f"^host must be an address of this machine.*, got '{host}'"):
            bind(host, 8000)
