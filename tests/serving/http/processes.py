"""Real `univert serve` processes on loopback, and small HTTP clients for them."""

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

START_S = 60.0
COMMAND = [sys.executable, "-c", "import univert.cli.serving, univert.cli; univert.cli.main()", "serve"]


@dataclass
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class ServerProcess:
    process: subprocess.Popen[str]
    lines: list[dict[str, Any]] = field(default_factory=list)
    port: int = 0
    ready: threading.Event = field(default_factory=threading.Event)
    reader: threading.Thread | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def read_log(self) -> None:
        assert self.process.stdout is not None
        for text in self.process.stdout:
            try:
                line = json.loads(text)
            except ValueError:
                line = {"event": text.rstrip(), "unstructured": True}
            self.lines.append(line)
            if line["event"] == "listening":
                self.port = int(line["address"].rpartition(":")[2])
            if line["event"] == "ready":
                self.ready.set()
        self.ready.set()

    def request(
        self,
        method: str,
        path: str,
        *,
        photo: bytes | None = None,
        fields: Mapping[str, str | list[str]] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        timeout_s: float = 30,
    ) -> Answer:
        sent = dict(headers or {})
        if photo is not None or fields is not None:
            body, sent["Content-Type"] = multipart(photo, fields or {})
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)
        with contextlib.closing(connection):
            connection.request(method, path, body=body, headers=sent)
            got = connection.getresponse()
            return Answer(got.status, {k.lower(): v for k, v in got.getheaders()}, got.read())

    def search(self, photo: bytes | None = None, **fields: str | list[str]) -> Answer:
        return self.request("POST", "/search", photo=photo, fields=fields)

    def rss_bytes(self) -> int:
        parent = psutil.Process(self.process.pid)
        return sum(process.memory_info().rss for process in [parent, *parent.children(recursive=True)])

    def events(self, name: str) -> list[dict[str, Any]]:
        return [line for line in list(self.lines) if line["event"] == name]

    def listens(self) -> bool:
        try:
            return self.request("GET", "/ready").status == 200
        except ConnectionRefusedError:
            return False

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def wait(self, timeout_s: float = 40) -> int:
        status = self.process.wait(timeout_s)
        if self.reader is not None:
            self.reader.join()
        return status


@contextlib.contextmanager
def serving(model: Path, index: Path, **settings: Any) -> Iterator[ServerProcess]:
    variables = {f"UNIVERT_{name.upper()}": as_text(value) for name, value in settings.items()}
    process = subprocess.Popen(
        [*COMMAND, str(model), str(index), "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **variables},
    )
    server = ServerProcess(process)
    server.reader = threading.Thread(target=server.read_log, daemon=True)
    server.reader.start()
    try:
        assert server.ready.wait(START_S), "the server did not start in time"
        assert process.poll() is None, server.lines
        wait_until(server.listens)
        yield server
    finally:
        if process.poll() is None:
            server.terminate()
        try:
            server.wait()
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        finally:
            process.stdout.close()


def as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def multipart(
    photo: bytes | None, fields: Mapping[str, str | list[str]], *, file_name: str = "photo.jpg"
) -> tuple[bytes, str]:
    boundary = uuid.uuid4().hex
    parts = []
    for name, value in fields.items():
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'
        parts += [f"{head}{one}\r\n".encode() for one in (value if isinstance(value, list) else [value])]
    if photo is not None:
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="photo"; filename="{file_name}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        )
        parts.append(head.encode() + photo + b"\r\n")
    return b"".join(parts) + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"


def wait_until(condition: Any, timeout_s: float = 10) -> None:
    limit = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < limit, "it did not happen in time"
        time.sleep(0.02)


class Load(threading.Thread):
    """A client with one open connection that asks on and on under its own name; counts what came of it."""

    def __init__(
        self,
        server: ServerProcess,
        photo: bytes,
        check: Callable[[bytes], None] | None = None,
        *,
        name: str = "load",
        connects_again: bool = False,
    ) -> None:
        super().__init__(daemon=True, name=name)
        self.server, self.check, self.connects_again = server, check, connects_again
        self.body, self.kind = multipart(photo, {"k": "24"})
        self.outcomes: Counter[str] = Counter()
        self.errors: list[BaseException] = []
        self.enough = threading.Event()

    def run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=30)
        with contextlib.closing(connection):
            self.ask(connection)

    def ask(self, connection: http.client.HTTPConnection) -> None:
        headers = {"Content-Type": self.kind, "X-Request-ID": self.name}
        while not self.enough.is_set():
            fresh = connection.sock is None
            try:
                connection.request("POST", "/search", body=self.body, headers=headers)
                got = connection.getresponse()
                content = got.read()
                self.outcomes[str(got.status)] += 1
                if self.check is not None and got.status == 200:
                    self.check(content)
                if got.getheader("connection") == "close":
                    connection.close()
            except (ConnectionError, http.client.IncompleteRead) as error:
                if not fresh or isinstance(error, http.client.IncompleteRead):
                    self.errors.append(error)
                self.outcomes["not taken"] += 1  # a new connection, refused or dropped from the system's queue
                if not self.connects_again:
                    return
                connection.close()
            except BaseException as error:
                self.errors.append(error)
                return
