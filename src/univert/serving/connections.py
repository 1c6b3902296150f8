"""The HTTP protocol of the service: uvicorn's, with an eye on clients that connect and then do not talk."""

from __future__ import annotations

import asyncio
import json
import secrets
import socket
from typing import Any, Final

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from univert.serving.problems import KINDS, MEDIA_TYPE

HEADER_DEADLINE_S: Final = 10.0
CONNECTIONS_MAX: Final = 1000
LAST_CALL_S: Final = 0.3


class TimedProtocol(H11Protocol):
    """Closes connections whose headers do not arrive in time, and those beyond a number.

    uvicorn waits for ever for the first request of a connection, and for the rest of half a header: each such
    connection costs a client nothing and the server a file descriptor. Requests that are no HTTP are answered with
    problem details, too.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._header_deadline_s: float = getattr(config, "header_deadline_s", HEADER_DEADLINE_S)
        self._connections_max: int = getattr(config, "connections_max", CONNECTIONS_MAX)
        self._header_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client connected."""
        super().connection_made(transport)
        # The answer goes out in pieces; the system would hold the last one back until the client has acknowledged
        # the others, which takes its system up to 40 ms. asyncio asks for this only on sockets that it made itself.
        connection = transport.get_extra_info("socket")
        if connection is not None and connection.family in (socket.AF_INET, socket.AF_INET6):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if len(self.connections) > self._connections_max:
            transport.close()
            return
        self._expect_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client or the server ended it."""
        self._headers_are_there()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        """What has arrived, as HTTP events; between requests the headers of the next are timed from their start."""
        super().handle_events()
        waiting = self.conn.their_state is h11.IDLE
        if waiting and self.conn.trailing_data[0] and self._header_timer is None:
            self._expect_headers()
        elif not waiting:
            self._headers_are_there()

    def shutdown(self) -> None:
        """The server stops: a request that is on its way is still taken, then the connection ends.

        uvicorn closes a connection at once on which it has read no request yet, although one may have been sent.
        """
        if self._is_idle():
            self.loop.call_later(LAST_CALL_S, self._end)
        else:
            self.cycle.keep_alive = False

    def send_400_response(self, msg: str) -> None:
        """Tell a client that what it sent is no HTTP."""
        kind = KINDS["validation"]
        request_id = secrets.token_hex(8)
        body = json.dumps(
            {
                "type": "/problems/validation",
                "title": kind.title,
                "status": 400,
                "detail": msg,
                "instance": "",
                "request_id": request_id,
            }
        ).encode()
        headers = [
            ("content-type", MEDIA_TYPE),
            ("content-length", str(len(body))),
            ("x-request-id", request_id),
            ("x-content-type-options", "nosniff"),
            ("connection", "close"),
        ]
        for event in (
            h11.Response(status_code=400, headers=headers, reason=b"Bad Request"),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _end(self) -> None:
        if not self._is_idle():
            self.cycle.keep_alive = False
        elif not self.transport.is_closing():
            super().shutdown()

    def _expect_headers(self) -> None:
        self._header_timer = self.loop.call_later(self._header_deadline_s, self._give_up)

    def _headers_are_there(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _give_up(self) -> None:
        self._header_timer = None
        if not self.transport.is_closing():
            self.transport.close()
