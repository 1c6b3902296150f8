"""Clients that are slow, many, or lie about how much they send."""

import contextlib
import functools
import select
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.serving.hostile.test_files import check_problem
from tests.serving.http.processes import ServerProcess, multipart, wait_until
from tests.serving.served import SMALL_LIMITS

HEAD = b"POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Length: 90000\r\n"
HEAD += b"Content-Type: multipart/form-data; boundary=b\r\n\r\n"
BYTES_MAX: int = SMALL_LIMITS["photo_bytes_max"]


def connect(server: ServerProcess) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=15)


def received(connection: socket.socket) -> bytes:
    """All that comes until the other side closes."""
    return b"".join(iter(functools.partial(connection.recv, 65536), b""))


def closed_after_s(connection: socket.socket, first: bytes) -> tuple[float, bytes]:
    """Send the beginning of a request and wait for the other side to have enough."""
    start, got = time.monotonic(), b""
    with contextlib.closing(connection), contextlib.suppress(ConnectionError):
        connection.sendall(first)
        got = received(connection)
    return time.monotonic() - start, got


@pytest.mark.parametrize(
    "first",
    [b"", b"GET /health HT", b"POST /search HTTP/1.1\r\nHost: localhost\r\nX-A: "],
    ids=["nothing", "half a line", "half a header"],
)
def test_headers_that_do_not_come(server: ServerProcess, first: bytes) -> None:
    seconds, got = closed_after_s(connect(server), first)
    assert seconds < SMALL_LIMITS["idle_s"] + 2
    assert got == b""


def test_a_body_that_trickles_is_cut_off_while_others_are_served(server: ServerProcess, photo: bytes) -> None:
    slow = [connect(server) for _ in range(50)]
    for connection in slow:
        connection.sendall(HEAD + b"--b\r\n")
    started = time.monotonic()
    answers = []
    for connection in slow:  # a byte now and then must not buy more time
        connection.sendall(b"C")
    assert server.search(photo, k="1").status == 200
    for connection in slow:
        with contextlib.closing(connection):
            answers.append(received(connection))
    assert time.monotonic() - started < SMALL_LIMITS["body_deadline_s"] + 3
    assert all(answer.startswith(b"HTTP/1.1 408") for answer in answers)
    assert b"/problems/slow-upload" in answers[0]


def test_uploads_that_say_nothing_keep_nobody_out(server: ServerProcess, photo: bytes) -> None:
    with contextlib.ExitStack() as opened:
        silent = [opened.enter_context(connect(server)) for _ in range(300)]
        for connection in silent:
            connection.sendall(HEAD)
        assert {server.search(photo, k="1").status for _ in range(30)} == {200}
        wait_until(lambda: server.search(photo, k="1").status == 200 and select.select(silent, [], [], 0)[0], 2)
        first = received(select.select(silent, [], [], 0)[0][0])
        assert first.startswith(b"HTTP/1.1 408")
        assert b"silent longest" in first
    wait_until(lambda: b"univert_requests_in_flight 1.0" in server.request("GET", "/metrics").body)


@pytest.mark.parametrize("declared", [True, False], ids=["said before", "in chunks, without a length"])
def test_a_hundred_uploads_at_once_over_the_limit(server: ServerProcess, photo: bytes, declared: bool) -> None:
    body, kind = multipart(bytes(10 * BYTES_MAX), {})
    before, peak, done = server.rss_bytes(), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            peak[0] = max(peak[0], server.rss_bytes())

    def upload(_: int) -> Any:
        sent: Any = body if declared else iter([body[at : at + 65536] for at in range(0, len(body), 65536)])
        return server.request("POST", "/search", body=sent, headers={"Content-Type": kind})

    watcher = threading.Thread(target=watch)
    watcher.start()
    with ThreadPoolExecutor(100) as pool:
        answers = list(pool.map(upload, range(100)))
    done.set()
    watcher.join()
    for answer in answers:
        check_problem(answer, (413, 503))
    check_problem(upload(0), (413,))
    assert peak[0] - before < 100_000_000
    assert server.search(photo, k="1").status == 200
    wait_until(lambda: b"univert_upload_bytes 0.0" in server.request("GET", "/metrics").body)


def test_clients_that_hang_up_leave_nothing_behind(server: ServerProcess, photo: bytes) -> None:
    body, kind = multipart(photo, {})
    head = f"POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    for length in (0, 100, len(body) - 1, len(body)):
        for _ in range(5):
            with contextlib.closing(connect(server)) as connection:
                connection.sendall(head.encode() + body[:length])
    assert server.search(photo, k="1").status == 200

    def quiet() -> bool:
        text = server.request("GET", "/metrics").body
        return b"univert_requests_in_flight 1.0" in text and b"univert_upload_bytes 0.0" in text

    wait_until(quiet)
    assert not any(line.get("problem") == "internal" for line in server.lines)
