"""Starting and stopping: from SIGTERM on the service says that it is not ready, serves on a while, then stops."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from univert.core.errors import UnivertError
from univert.serving.request_logs import log

Handler = Callable[[int, FrameType | None], Any]


class Lifecycle:
    """Whether requests are answered.

    Attributes:
        loaded: model and index are there.
        failure: why the service could not start; None if nothing is wrong.
        draining: the process was told to stop: it still answers, and asks clients to go elsewhere.
    """

    def __init__(self) -> None:
        self.loaded = False
        self.failure: UnivertError | None = None
        self.draining = False

    @property
    def ready(self) -> bool:
        """Whether a load balancer should send requests here."""
        return self.loaded and not self.draining

    @contextmanager
    def draining_on_stop(self, drain_s: float) -> Iterator[None]:
        """Put a drain before the server's own way of stopping.

        Connections that stay open between requests are the reason: a server that closes them at once loses the
        request that is on its way. While draining, each answer closes its connection in good order.

        Args:
            drain_s: how long; 0 leaves the server as it is.
        """
        if not drain_s or threading.current_thread() is not threading.main_thread():
            yield
            return
        servers_own = signal.getsignal(signal.SIGTERM)
        if not callable(servers_own):
            yield
            return
        finish: Handler = servers_own
        loop = asyncio.get_running_loop()

        def stop(number: int, frame: FrameType | None) -> None:
            if self.draining:
                return
            self.draining = True
            loop.call_soon_threadsafe(later, number)

        def later(number: int) -> None:
            log(logging.INFO, "draining", seconds=drain_s)
            loop.call_later(drain_s, finish, number, None)

        signal.signal(signal.SIGTERM, stop)
        try:
            yield
        finally:
            if signal.getsignal(signal.SIGTERM) is stop:
                signal.signal(signal.SIGTERM, servers_own)
