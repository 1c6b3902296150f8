"""The outermost layer: an id, a log line and counts for each request, keys and limits before any of it is read."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from typing import Final

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from univert.serving.lifecycle import Lifecycle
from univert.serving.metrics import Metrics
from univert.serving.problems import Problem, busy, problem_response
from univert.serving.rate_limits import RateLimits, retry_after
from univert.serving.request_logs import RequestRecord, log, request_id_from
from univert.serving.security import SECURITY_HEADERS, ApiKeys, is_open
from univert.serving.settings import Settings
from univert.serving.uploads import discard_body

ITEMS: Final = "/items/"
THUMBNAIL: Final = "/thumbnail"
"""An item's address is the first and its id; its thumbnail's ends in the second."""

CHARGE: Final = "univert.charge"
"""In a request's scope: a function that counts so many tokens towards the client's rate, or raises `Problem`."""

_QUIET: Final = ("/health", "/ready", "/metrics")
"""Asked every few seconds by machines: logged only when it fails."""

_PLAIN_ROUTES: Final = ("/", "/search", "/embed", "/verticals", "/openapi.json", *_QUIET)
"""Paths that are labels of metrics as they are."""


class Gate:
    """ASGI middleware around the whole application.

    Args:
        app: what it guards.
        settings: limits.
        metrics: where requests are counted.
        lifecycle: whether the service is ready.
        keys: API keys.
        rates: how often each client may ask; None for no limit.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        settings: Settings,
        metrics: Metrics,
        lifecycle: Lifecycle,
        keys: ApiKeys,
        rates: RateLimits | None,
    ) -> None:
        self._app = app
        self._settings = settings
        self._metrics = metrics
        self._lifecycle = lifecycle
        self._keys = keys
        self._rates = rates
        self._in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, or the application's own start and end."""
        if scope["type"] == "lifespan":
            await self._lifespan(scope, receive, send)
        elif scope["type"] == "http":
            await self._request(scope, receive, send)

    async def _request(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        record = RequestRecord(request_id=request_id_from(headers))
        scope["univert.record"] = record
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = self._headers(message["headers"], record)
            await send(message)

        async def received() -> Message:
            message = await receive()
            if message["type"] == "http.request" and not message.get("more_body", False):
                record.body_complete = True
            return message

        counted = False
        self._metrics.in_flight.inc()
        try:
            counted = self._admit(scope, headers, record)
            self._in_flight += counted
            await self._app(scope, received, answer)
        except Problem as problem:
            await discard_body(Request(scope, received), record)
            await problem_response(problem, scope)(scope, receive, answer)
        except Exception:
            log(logging.ERROR, "failed", failed=True, request_id=record.request_id)
            if status:
                raise  # part of the answer is out: the server can only cut the connection
            failure = Problem("internal", "an error of the service's own; it has been logged")
            await problem_response(failure, scope)(scope, receive, answer)
        finally:
            self._in_flight -= counted
            self._metrics.in_flight.dec()
            self._account(scope, record, status)

    def _admit(self, scope: Scope, headers: Mapping[bytes, bytes], record: RequestRecord) -> bool:
        """Refuse a request before anything of its body is read.

        Returns:
            whether it counts towards `requests_at_once`. What anybody may ask does not, nor does what is refused:
            whoever has no key must not be able to keep out those who have one.

        Raises:
            Problem: `unauthorised`, `rate-limited` or `overloaded`.
        """
        path: str = scope["path"]
        if is_open(path) or scope["method"] == "OPTIONS":
            return False
        if self._keys:
            record.key_name = self._keys.name_of(headers)
            if record.key_name is None:
                raise Problem(
                    "unauthorised",
                    "no API key, or one that is not accepted; send X-API-Key",
                    {"WWW-Authenticate": "Bearer"},
                )
        if path == "/metrics":
            return False
        client = record.key_name or (scope.get("client") or ("unknown", 0))[0]
        scope[CHARGE] = partial(self._charge, client)
        # A page of results asks for all of its thumbnails, most of which are kept: the route charges for the others.
        if not path.endswith(THUMBNAIL):
            self._charge(client, 1.0)
        if self._in_flight >= self._settings.requests_at_once:
            raise busy("overloaded", "too many requests at once", self._settings.retry_after_s)
        return True

    def _charge(self, client: str, tokens: float) -> None:
        wait_s = self._rates.take(client, tokens) if self._rates is not None else 0.0
        if wait_s:
            raise busy("rate-limited", f"over {self._settings.rate_per_s:g} requests a second", retry_after(wait_s))

    def _headers(self, headers: list[tuple[bytes, bytes]], record: RequestRecord) -> list[tuple[bytes, bytes]]:
        present = {name.lower() for name, _ in headers}
        added = [(b"x-request-id", record.request_id.encode())]
        added += [(name, value) for name, value in SECURITY_HEADERS.items() if name not in present]
        if b"cross-origin-resource-policy" not in present:
            policy = b"cross-origin" if self._settings.cors_origins else b"same-origin"
            added.append((b"cross-origin-resource-policy", policy))
        if b"cache-control" not in present:
            added.append((b"cache-control", b"no-store"))
        if self._lifecycle.draining and b"connection" not in present:
            added.append((b"connection", b"close"))
        return [*headers, *added]

    def _account(self, scope: Scope, record: RequestRecord, status: int) -> None:
        route = _route(scope)
        total_s = record.total_s()
        self._metrics.requests.labels(route, _method(scope), str(status)).inc()
        self._metrics.request_seconds.labels(route).observe(total_s)
        for stage, seconds in record.stages_s.items():
            self._metrics.stage_seconds.labels(stage).observe(seconds)
        if record.problem:
            self._metrics.problems.labels(record.problem).inc()
        if scope["path"] in _QUIET and status < 500:
            return
        fields = {
            "request_id": record.request_id,
            "method": scope["method"],
            "route": route,
            "status": status,
            "ms": round(1000 * total_s, 1),
            "client": (scope.get("client") or (None,))[0],
            "key": record.key_name,
            "problem": record.problem,
            "index_version": record.index_version,
            "bytes_in": record.bytes_in or None,
            "stages_ms": {name: round(1000 * seconds, 1) for name, seconds in record.stages_s.items()} or None,
        }
        level = logging.ERROR if status >= 500 and record.problem == "internal" else logging.INFO
        log(level, "request", **{name: value for name, value in fields.items() if value is not None})

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A bad model or index is told in one line, as everywhere, and not as a traceback."""

        async def one_line(message: Message) -> None:
            failure = self._lifecycle.failure
            if message["type"] == "lifespan.startup.failed" and failure is not None:
                message["message"] = f"univert: {failure}"
            await send(message)

        await self._app(scope, receive, one_line)


def _route(scope: Scope) -> str:
    """The route as a label: also of what was refused before it got there, and never a stranger's own words."""
    path: str = getattr(scope.get("route"), "path", None) or scope["path"]
    if path.startswith(ITEMS) and "{" not in path:
        return "/items/{id:path}/thumbnail" if path.endswith(THUMBNAIL) else "/items/{id:path}"
    return path if path in _PLAIN_ROUTES or "{" in path else "none"


def _method(scope: Scope) -> str:
    """The method as a label: strangers' inventions must not become one time series each."""
    method: str = scope["method"]
    return method if method in ("GET", "HEAD", "POST", "OPTIONS", "PUT", "DELETE", "PATCH") else "other"
