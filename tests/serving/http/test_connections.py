"""Connections that mean harm: they do not read what they asked for, or send a body a byte at a time."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
import uvicorn

from tests.serving.http.processes import Answer, wait_until
from univert.search.index import Index
from univert.serving.app import create_app
from univert.serving.server import ServiceConfig, server_config
from univert.serving.settings import Settings

WRITE_DEADLINE_S = 2.0
CLIENTS = 12

Running = tuple[uvicorn.Server, int]


@pytest.fixture
def running(model_folder: Path, index: Index, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    """A server in this process that takes two requests at once, and its port."""
    settings = Settings(
        model=str(model_folder), index=str(index.path), requests_at_once=2, drain_s=0, port=0, keep_alive_s=1
    )
    config: ServiceConfig = server_config(settings)
    config.app, config.factory, config.log_config = create_app(settings), False, None
    config.write_deadline_s = WRITE_DEADLINE_S  # type: ignore[attr-defined]
    with socket.create_server(("127.0.0.1", 0)) as listening:
        # so that the system takes little of an answer off the server's hands
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        server = uvicorn.Server(config)
        monkeypatch.setattr(server, "capture_signals", contextlib.nullcontext)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            wait_until(lambda: server.started, 30)
            yield server, listening.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


def connect(port: int) -> socket.socket:
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(10)
    connection.connect(("127.0.0.1", port))
    return connection


def ask(port: int, method: str, path: str, body: Iterable[bytes] | None = None) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    with contextlib.closing(connection):
        connection.request(method, path, body=body)
        got = connection.getresponse()
        return Answer(got.status, {name.lower(): value for name, value in got.getheaders()}, got.read())


def status_of(port: int, path: str) -> int:
    return ask(port, "GET", path).status


@pytest.mark.parametrize(("path", "requests"), [("/openapi.json", 600), ("/verticals", 40)])
def test_answers_that_nobody_reads_keep_nobody_out(running: Running, path: str, requests: int) -> None:
    server, port = running
    asked = f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode() * requests
    with contextlib.ExitStack() as opened:
        for _ in range(CLIENTS):
            connection = opened.enter_context(connect(port))
            connection.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                connection.send(asked)
        time.sleep(0.5)
        if path == "/openapi.json":
            assert len(server.server_state.connections) == CLIENTS
            assert status_of(port, "/items/p4-1") == 200
        wait_until(lambda: not server.server_state.connections, WRITE_DEADLINE_S + 8)
        assert status_of(port, "/items/p4-1") == 200


def test_a_body_in_chunks_is_not_taken(running: Running) -> None:
    _, port = running
    head = b"POST /search HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    enough = threading.Event()

    def flood() -> None:
        with contextlib.suppress(OSError), connect(port) as connection:
            connection.sendall(head)
            while not enough.is_set():
                connection.sendall(b"1\r\n-\r\n" * 40_000)

    floods = [threading.Thread(target=flood) for _ in range(2)]
    for one in floods:
        one.start()
    start = time.monotonic()
    for _ in range(5):
        assert status_of(port, "/items/p4-1") == 200
    assert time.monotonic() - start < 2
    enough.set()
    for one in floods:
        one.join()


def test_a_client_that_still_sends_is_told_why(running: Running) -> None:
    _, port = running
    answer = ask(port, "POST", "/search", iter([b"x" * 65_536] * 40))
    assert answer.status == 411
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["type"] == "/problems/length-required"
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert status_of(port, "/problems/length-required") == 200
    document = ask(port, "GET", "/openapi.json").json()
    assert "411" in document["paths"]["/search"]["post"]["responses"]
