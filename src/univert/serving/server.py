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
from uvicorn.supervisors import Multiprocess

from univert.serving import metrics, rate_limits
from univert.serving.connections import TimedProtocol
from univert.serving.request_logs import logging_config
from univert.serving.settings import Settings

APPLICATION: Final = "univert.serving.app:create_app"

_HEALTHCHECK_S: Final = 60
"""A worker that loads a model on a busy machine may be silent for a while."""

_HEADER_BYTES: Final = 32_768


class ServiceConfig(uvicorn.Config):
    """uvicorn's configuration with the limits that `TimedProtocol` reads from it."""

    def __init__(self, settings: Settings, **options: Any) -> None:
        super().__init__(APPLICATION, factory=True, **options)
        self.header_deadline_s = settings.header_deadline_s
        self.connections_max = settings.connections_max


def run_server(settings: Settings) -> int:
    """Serve until told to stop. The workers read their settings from the environment, as this process did.

    Args:
        settings: of the service.

    Returns:
        the exit status: 0, or 2 where the service could not start; the reason is in the log.
    """
    config = server_config(settings)
    socket = config.bind_socket()
    if settings.workers == 1:
        try:
            uvicorn.Server(config).run(sockets=[socket])
        except SystemExit:
            return 2
        return 0
    with _shared_by_workers(settings):
        supervisor = Multiprocess(config, sockets=[socket])
        supervisor.run()
        return 2 if any(process.exitcode == 3 for process in supervisor.processes) else 0


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
        timeout_worker_healthcheck=_HEALTHCHECK_S,
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
