"""The service as processes: one socket, one or several workers behind it, and what they share."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import uvicorn
from uvicorn.config import STARTUP_FAILURE

from univert.core.allocator import reuse_freed_memory
from univert.serving import metrics, rate_limits
from univert.serving.connections import TimedProtocol
from univert.serving.listening import bind
from univert.serving.request_logs import logging_config
from univert.serving.settings import Settings
from univert.serving.startup import StartupStatus
from univert.serving.workers import Workers

APPLICATION: Final = "univert.serving.app:create_app"

_STOP_S: Final = 10
"""How much longer than its settings allow a worker may take to stop."""

_HEADER_BYTES: Final = 32_768
_LARGEST_KEPT_BYTES: Final = 4_000_000
"""Blocks of memory up to this are kept for the next request; what a large photo took goes back to the system."""


class ServiceConfig(uvicorn.Config):
    """uvicorn's configuration with the limits that `TimedProtocol` reads from it."""

    def __init__(self, settings: Settings, **options: Any) -> None:
        super().__init__(APPLICATION, factory=True, **options)
        self.header_deadline_s = settings.header_deadline_s
        self.connections_max = settings.connections_max

    def load(self) -> None:
        """As uvicorn's, with a start whose failure says by the exit status whether to try again.

        It is called in each process that serves.
        """
        reuse_freed_memory(_LARGEST_KEPT_BYTES)
        super().load()
        self.lifespan_class = StartupStatus


def run_server(settings: Settings) -> int:
    """Serve until told to stop. The workers read their settings from the environment, as this process did.

    A worker of several that could not start for a reason that may pass is started again, while the others serve.

    Args:
        settings: of the service.

    Returns:
        the exit status; the reason is in the log. 0: it was told to stop. 2: it cannot start, for the model, the
        index or a setting is wrong, and stays so. 1: it could not start just now, as when the object store is away.

    Raises:
        BadInputError: the host or the port can never be listened on.
        UnivertError: the port is in use.
    """
    config = server_config(settings)
    socket = bind(settings.host, settings.port)
    if settings.workers == 1:
        try:
            uvicorn.Server(config).run(sockets=[socket])
        except SystemExit as stopped:
            return 2 if stopped.code == STARTUP_FAILURE else 1
        return 0
    with _shared_by_workers(settings):
        stop_s = settings.drain_s + settings.shutdown_deadline_s + _STOP_S
        return 0 if Workers(config, socket, stop_s=stop_s).run() else 2


def server_config(settings: Settings) -> ServiceConfig:
    """How uvicorn is to run the application."""
    return ServiceConfig(
        settings,
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        http=TimedProtocol,
        ws="none",
        lifespan="on",
        log_config=logging_config(settings.log_level),
        access_log=False,
        server_header=False,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=settings.trusted_proxies or None,
        timeout_keep_alive=max(1, round(settings.keep_alive_s)),
        timeout_graceful_shutdown=max(1, round(settings.shutdown_deadline_s)),
        h11_max_incomplete_event_size=_HEADER_BYTES,
    )


@contextmanager
def _shared_by_workers(settings: Settings) -> Iterator[None]:
    """A folder for what the workers count together, gone when they are."""
    with tempfile.TemporaryDirectory(prefix="univert-serve-") as name:
        os.environ[metrics.FOLDER_VARIABLE] = name
        if settings.rate_per_s is not None:
            os.environ[rate_limits.FILE_VARIABLE] = str(Path(name) / "rates")
        sys.stdout.flush()
        yield
