"""What operators see: logs of one JSON object a line, counts for Prometheus, and the middleware that writes both."""

from __future__ import annotations

import ipaddress
import json
import logging
import os
import queue
import random
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from logging.handlers import QueueHandler, QueueListener
from pathlib import Path
from typing import Any, Final

from fastapi import Request
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from univert.serving.problems import Problem, problem_response
from univert.serving.settings import METRICS_VARIABLE, Settings
from univert.serving.shared import counts_of_all, take_room

LOGGER: Final = logging.getLogger("univert.serving")

_LINES_MAX: Final = 10_000
_LAST_LINES_S: Final = 2.0
API_POLICY: Final = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
_HEADERS: Final = {
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-opener-policy": b"same-origin",
    b"permissions-policy": b"camera=(self), microphone=(), geolocation=(), payment=(), usb=()",
    b"content-security-policy": API_POLICY.encode(),
    b"cache-control": b"no-store",
    b"server": b"univert",
}
"""Of every answer that does not say otherwise."""

_HOST: Final = re.compile(r"(?:\[(?P<ip>[^\[\]]+)\]|(?P<name>[^\[\]:]*))(?::[0-9]*)?")
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_METHODS: Final = ("GET", "HEAD", "POST", "OPTIONS", "PUT", "DELETE", "PATCH")
_QUIET: Final = ("/health", "/ready", "/metrics")
"""Asked every few seconds by machines: logged only when it fails."""
_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.08, 0.15, 0.3, 0.6, 1.2, 2.5, 5.0, 10.0, 30.0)
_SIZES: Final = (1, 2, 4, 8, 16, 32, 64, 128)


class JsonFormatter(logging.Formatter):
    """Log records as JSON lines: time, level, event, and whatever `fields` the record carries."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            "process": record.process,
        }
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class _Stdout(logging.Handler):
    """Writes to the file itself: what Python still buffers is waited for at the end of a process, without end."""

    def createLock(self) -> None:  # noqa: N802
        """One thread writes; who ends the process must not wait for a lock that it holds."""
        self.lock = None

    def emit(self, record: logging.LogRecord) -> None:
        left = memoryview(f"{record.getMessage()}\n".encode("utf-8", "replace"))
        with suppress(OSError):  # nobody reads any more
            while left:
                left = left[os.write(1, left) :]


class BackgroundLines(QueueHandler):
    """Writes lines to stdout from a thread of its own: a reader of the log that stalls must not stall requests.

    Beyond `_LINES_MAX` waiting lines new ones are dropped, and how many is said when there is room again.
    """

    def __init__(self) -> None:
        super().__init__(queue.Queue(_LINES_MAX))
        self._dropped = 0
        self._listener = QueueListener(self.queue, _Stdout())
        self._listener.start()

    def enqueue(self, record: logging.LogRecord) -> None:
        """Hand a line over, or count it as dropped."""
        try:
            if self._dropped:
                said = {"level": "error", "event": "log lines dropped", "lines": self._dropped}
                self.queue.put_nowait(logging.makeLogRecord({"msg": json.dumps(said)}))
                self._dropped = 0
            self.queue.put_nowait(record)
        except queue.Full:
            self._dropped += 1

    def close(self) -> None:
        """Write what waits, but do not wait for ever for a reader that stalls."""
        last = threading.Thread(target=self._listener.stop, daemon=True)
        last.start()
        last.join(_LAST_LINES_S)
        super().close()


def log(level: int, event: str, *, failed: bool = False, **fields: Any) -> None:
    """Write a line: an event in a few fixed words, and fields; if it `failed`, with the exception being handled."""
    LOGGER.log(level, event, extra={"fields": fields}, exc_info=failed)


def logging_config() -> dict[str, Any]:
    """The configuration for `logging.config`: every line in one form, to stdout."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": JsonFormatter}},
        "handlers": {"lines": {"()": BackgroundLines, "formatter": "json"}},
        "loggers": {
            "univert": {"level": "INFO"},
            "_granian": {"level": "WARNING"},
            "granian.access": {"level": "CRITICAL"},
            # what is wrong with an upload is said to the client, not by the megabyte to the log
            "python_multipart": {"level": "ERROR"},
        },
        "root": {"handlers": ["lines"], "level": "WARNING"},
    }


@dataclass(kw_only=True, slots=True)
class RequestRecord:
    """What is known of a request while it is served; written to the log when it ends.

    The id is as the client gave it, if that is a plain short word and so safe in logs, or a new one.
    """

    request_id: str
    started_s: float = field(default_factory=time.perf_counter)
    key_name: str | None = None
    problem: str | None = None
    index_version: int | None = None
    bytes_in: int = 0
    stages_s: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.stages_s[name] = self.stages_s.get(name, 0.0) + time.perf_counter() - start

    def total_s(self) -> float:
        """Seconds since the headers arrived."""
        return time.perf_counter() - self.started_s


class Counts:
    """The counters, histograms and gauges of one application."""

    def __init__(self) -> None:
        folder = os.environ.get(METRICS_VARIABLE)
        self._folder = Path(folder) if folder else None
        if self._folder is not None and (missing := take_room(self._folder)):
            log(logging.WARNING, "no room for the counts: a scrape shows one worker alone", reason=missing)
            self._folder = None
        own = self._registry = CollectorRegistry()
        ProcessCollector(registry=own)

        def gauge(name: str, about: str, mode: Any = "livesum") -> Gauge:
            return Gauge(f"univert_{name}", about, registry=own, multiprocess_mode=mode)

        def histogram(name: str, about: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(f"univert_{name}", about, labels, buckets=buckets, registry=own)

        self.requests = Counter("univert_requests", "Requests answered.", ("route", "method", "status"), registry=own)
        self.problems = Counter("univert_problems", "Requests answered with a problem.", ("type",), registry=own)
        self.identities = Counter(
            "univert_identities", "Answers of identity, by what is known.", ("level", "known"), registry=own
        )
        self.request_seconds = histogram(
            "request_seconds", "From the end of the headers to the end of the answer.", _SECONDS, "route"
        )
        self.stage_seconds = histogram(
            "stage_seconds", "Seconds in each stage: read, decode, embed, search, identify.", _SECONDS, "stage"
        )
        self.batch_size = histogram("batch_size", "Photos that went through the network together.", _SIZES)
        self.forward_seconds = histogram("forward_seconds", "Seconds of the network for a batch.", _SECONDS)
        self.search_batch_size = histogram("search_batch_size", "Queries that went to the index together.", _SIZES)
        self.queue_depth = gauge("queue_depth", "Photos waiting for the network.")
        self.in_flight = gauge("requests_in_flight", "Requests being served.")
        self.upload_bytes = gauge("upload_bytes", "Bytes of uploads held.")
        self.index_version = gauge(
            "index_version", "The published version that answers; the oldest where workers differ.", "livemin"
        )
        self.index_images = gauge("index_images", "Images in the version that answers.", "livemin")
        self.refresh_failing = gauge(
            "index_refresh_failing", "Workers whose last look for a newer version of the index failed."
        )
        self.connections = gauge("connections", "Open connections, those included that say nothing.")

    def observe_batch(self, size: int, seconds: float) -> None:
        """A batch went through the network."""
        self.batch_size.observe(size)
        self.forward_seconds.observe(seconds)

    def render(self) -> bytes:
        """The text that Prometheus scrapes, over all worker processes if there are several."""
        folder = self._folder
        if folder is None:
            return generate_latest(self._registry)
        return counts_of_all(folder)


def answers_to(settings: Settings, host: str) -> bool:
    """Whether a request may be answered that is addressed to a host, as its Host header has it.

    A page elsewhere can make a browser send requests to a local service under a name of its own (DNS rebinding).
    """
    found = _HOST.fullmatch(host.strip().lower()) if len(host) <= 255 else None  # as the longest name
    if found is None:
        return False
    name = (found["ip"] or found["name"]).rstrip(".")
    if not name or is_loopback(name):
        return True
    if not settings.allowed_hosts:
        return not is_loopback(settings.host)
    return any(
        name == allowed or allowed == "*" or (allowed[0] == "*" and name.endswith(allowed[1:]))
        for allowed in settings.allowed_hosts
    )


def is_loopback(host: str) -> bool:
    """Whether a name or address can only mean this machine itself."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


class Observed:
    """ASGI middleware around the application: an id, a log line, counts and headers for each request."""

    def __init__(self, app: ASGIApp, service: Any) -> None:
        self._app = app
        self._service = service
        self._metrics: Counts = service.metrics
        policy = b"cross-origin" if service.settings.cors_origins else b"same-origin"
        self._added = {**_HEADERS, b"cross-origin-resource-policy": policy}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, or the application's own start and end."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request, method, status = Request(scope, receive), scope["method"], 0
        given = request.headers.get("x-request-id", "")
        record = RequestRecord(request_id=given if _REQUEST_ID.fullmatch(given) else f"{random.getrandbits(64):016x}")
        request.state.record = record
        if method == "HEAD":
            scope["method"] = "GET"  # the server leaves the body out
        scope.get("extensions", {}).pop("http.response.pathsend", None)  # files are compressed here, not sent by path

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = self._headers(message["headers"], record)
            await send(message)

        self._metrics.in_flight.inc()
        try:
            if answers_to(self._service.settings, request.headers.get("host", "")):
                await self._app(scope, receive, answer)
            else:
                said = "requests to this host are not answered; if the name is yours, add it to allowed_hosts"
                await problem_response(Problem("unknown-host", said), request)(scope, receive, answer)
        except Exception:
            log(logging.ERROR, "failed", failed=True, request_id=record.request_id)
            if status:
                raise  # part of the answer is out: the server can only cut the connection
            failure = Problem("internal", "an error of the service's own; it has been logged")
            await problem_response(failure, request)(scope, receive, answer)
        finally:
            self._metrics.in_flight.dec()
            self._account(request, record, method, status)

    def _headers(self, headers: list[tuple[bytes, bytes]], record: RequestRecord) -> list[tuple[bytes, bytes]]:
        present = {name.lower() for name, _ in headers}
        added = [(b"x-request-id", record.request_id.encode())]
        added += [(name, value) for name, value in self._added.items() if name not in present]
        if self._service.draining and b"connection" not in present:
            added.append((b"connection", b"close"))
        return [*headers, *added]

    def _account(self, request: Request, record: RequestRecord, method: str, status: int) -> None:
        # Labels are never a stranger's own words: not a path that is no route, nor a method that nobody knows.
        route = getattr(request.scope.get("route"), "path", "other" if "endpoint" in request.scope else "none")
        total_s = record.total_s()
        self._metrics.requests.labels(route, method if method in _METHODS else "other", str(status)).inc()
        self._metrics.request_seconds.labels(route).observe(total_s)
        for stage, seconds in record.stages_s.items():
            self._metrics.stage_seconds.labels(stage).observe(seconds)
        if record.problem:
            self._metrics.problems.labels(record.problem).inc()
        if route in _QUIET and status < 500:
            return
        fields: dict[str, Any] = {
            "request_id": record.request_id,
            "method": method,
            "route": route,
            "status": status,
            "ms": round(1000 * total_s, 1),
            "client": request.client.host[:100] if request.client else None,
            "key": record.key_name,
            "problem": record.problem,
            "index_version": record.index_version,
            "bytes_in": record.bytes_in or None,
            "stages_ms": {name: round(1000 * seconds, 1) for name, seconds in record.stages_s.items()} or None,
        }
        level = logging.ERROR if record.problem == "internal" else logging.INFO
        log(level, "request", **{name: value for name, value in fields.items() if value is not None})
