"""The HTTP protocol of the service: uvicorn's, with an eye on clients that connect and then do not talk."""

from __future__ import annotations

import asyncio
import json
import secrets
import socket
from http import HTTPStatus
from typing import Any, Final

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from univert.serving.problems import KINDS, MEDIA_TYPE

HEADER_DEADLINE_S: Final = 10.0
CONNECTIONS_MAX: Final = 1000
LAST_CALL_S: Final = 0.3
WRITE_DEADLINE_S: Final = 30.0
"""How long a client may take for what could not be sent to it at once."""
LINGER_S: Final = 2.0
"""How long a client whose body is not taken may go on sending it."""
_HEADER_BYTES: Final = 32_768


class _LengthsOnly(h11.Connection):
    """HTTP whose bodies say how long they are.

    A body in chunks may have a chunk for every byte; h11 takes a few microseconds for each, in the event loop, and a
    single connection of such would stop all others. Browsers and `curl -F` send a length.
    """

    refused = False

    def next_event(self) -> Any:
        """What has arrived.

        Raises:
            h11.RemoteProtocolError: it is no HTTP, or a request has a body without a length.
        """
        event = super().next_event()
        if isinstance(event, h11.Request) and any(name == b"transfer-encoding" for name, _ in event.headers):
            self.refused = True
            raise h11.RemoteProtocolError("a body without a length", error_status_hint=411)
        return event


class TimedProtocol(H11Protocol):
    """Closes connections whose headers do not arrive in time or whose answers are not taken, and those beyond a number.

    uvicorn waits for ever for the first request of a connection, for the rest of half a header, and for a client
    that does not read what it asked for: each such connection costs a client nothing and the server a file
    descriptor. Requests that are no HTTP, or whose body comes in chunks, are answered with problem details, too.
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
        self._write_deadline_s: float = getattr(config, "write_deadline_s", WRITE_DEADLINE_S)
        self._header_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self.conn: _LengthsOnly = _LengthsOnly(h11.SERVER, config.h11_max_incomplete_event_size or _HEADER_BYTES)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client connected."""
        super().connection_made(transport)
        # The answer goes out in pieces; the system would hold the last one back until the client has acknowledged
        # the others, which takes its system up to 40 ms. asyncio asks for this only on sockets that it made itself.
        connection = transport.get_extra_info("socket")
        if connection is not None and connection.family in (socket.AF_INET, socket.AF_INET6):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        transport.set_write_buffer_limits(high=0)  # `pause_writing` as soon as anything is left to be sent
        if len(self.connections) > self._connections_max:
            transport.close()
            return
        self._expect_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client or the server ended it."""
        self._headers_are_there()
        self._all_is_sent()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Something arrived; of a body that is not taken, nothing is looked at."""
        if not self.conn.refused:
            super().data_received(data)

    def pause_writing(self) -> None:
        """The client does not take what is sent as fast as it comes: from here on it has so much time for it."""
        super().pause_writing()
        if self._write_timer is None:
            self._write_timer = self.loop.call_later(self._write_deadline_s, self.transport.abort)

    def resume_writing(self) -> None:
        """The client has taken everything."""
        self._all_is_sent()
        super().resume_writing()

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
        """Tell a client that what it sent is no HTTP, or that its body has no length."""
        if self.conn.refused:
            self._refuse("length-required", 411, "the body has no Content-Length; send it whole, not in chunks")
            # The client may be sending still, and a connection that is closed with bytes unread loses the answer.
            if self.transport.can_write_eof():
                self.transport.write_eof()
            self.loop.call_later(LINGER_S, self.transport.abort)
        else:
            self._refuse("validation", 400, msg)
            self.transport.close()

    def _refuse(self, name: str, status: int, detail: str) -> None:
        request_id = secrets.token_hex(8)
        body = json.dumps(
            {
                "type": f"/problems/{name}",
                "title": KINDS[name].title,
                "status": status,
                "detail": detail,
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
            h11.Response(status_code=status, headers=headers, reason=HTTPStatus(status).phrase.encode()),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")

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

    def _all_is_sent(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def _give_up(self) -> None:
        self._header_timer = None
        if not self.transport.is_closing():
            self.transport.close()
