"""The service as processes: Granian's workers behind one address, and what they share."""

from __future__ import annotations

import errno
import logging
import multiprocessing
import os
import socket
import tempfile
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

from granian import Granian
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.log import LogLevels

from univert.core.errors import BadInputError, UnivertError
from univert.serving.logs import log, logging_config
from univert.serving.settings import METRICS_VARIABLE, RATE_FILE_VARIABLE, Settings, load_settings

CONNECTIONS_MAX: Final = 8192
"""Open connections of a worker; further ones wait until one closes."""

_BUFFER_BYTES: Final = 262_144
"""Of a connection: longer headers are refused, and a photo arrives in few pieces."""
_STOP_S: Final = 5
"""How much longer than its settings allow a worker may take to stop."""
_LARGEST_KEPT_BYTES: Final = 4_000_000
"""Blocks of memory up to this are kept for the next request; what a large photo took goes back to the system."""


def run_server(settings: Settings) -> None:
    """Serve until told to stop. The workers read their settings from the environment, as this process did.

    Args:
        settings: of the service.

    Raises:
        BadInputError: the host can never be listened on, or the model, the index or the calibration is wrong.
        UnivertError: what may pass: the port is in use, the object store is away, workers end again and again.
    """
    multiprocessing.set_start_method("spawn", force=True)  # threads of the libraries do not survive a fork
    port = free_port(settings.host, settings.port)
    _check(settings)
    with tempfile.TemporaryDirectory(prefix="univert-serve-") as shared:
        if settings.workers > 1:
            os.environ[METRICS_VARIABLE] = shared
            os.environ[RATE_FILE_VARIABLE] = str(Path(shared) / "rates")
        server = Granian(
            "univert.serving.server:worker_app",
            factory=True,
            address=settings.host,
            port=port,
            interface=Interfaces.ASGI,
            workers=settings.workers,
            backlog=1024,
            backpressure=CONNECTIONS_MAX,
            http=HTTPModes.http1,
            http1_settings=HTTP1Settings(
                header_read_timeout=max(1, round(1000 * settings.idle_s)), max_buffer_size=_BUFFER_BYTES
            ),
            websockets=False,
            respawn_failed_workers=True,
            workers_kill_timeout=round(settings.drain_s + settings.shutdown_deadline_s + _STOP_S),
            log_level=LogLevels.warning,
            log_dictconfig=logging_config(settings.log_level),
        )
        address = f"[{settings.host}]" if ":" in settings.host else settings.host
        log(logging.INFO, "listening", address=f"http://{address}:{port}")
        try:
            server.serve()
        except SystemExit as ended:
            raise UnivertError("the workers ended again and again; the log says why") from ended


def worker_app() -> Any:
    """What a worker serves."""
    from granian.utils.proxies import wrap_asgi_with_proxy_headers

    from univert.core.allocator import reuse_freed_memory
    from univert.serving.app import create_app

    reuse_freed_memory(_LARGEST_KEPT_BYTES)
    settings = load_settings()
    app = create_app(settings)
    return wrap_asgi_with_proxy_headers(app, settings.trusted_proxies) if settings.trusted_proxies else app


def free_port(host: str, port: int) -> int:
    """Make sure that an address can be listened on, which workers that share a port would not notice.

    Args:
        host: an address of this machine, or a name of it.
        port: the port; 0 takes any that is free.

    Returns:
        the port.

    Raises:
        BadInputError: the address can never be had: it is not this machine's, or not this user's to take.
        UnivertError: it cannot be had just now: something else listens there.
    """
    is_v6 = ":" in host
    address = f"[{host}]:{port}" if is_v6 else f"{host}:{port}"
    with socket.socket(socket.AF_INET6 if is_v6 else socket.AF_INET) as tried:
        try:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind((host, port))
        except OSError as error:
            raise _explained(error, host, address) from None
        found: int = tried.getsockname()[1]
        return found


def _explained(error: OSError, host: str, address: str) -> UnivertError:
    if isinstance(error, socket.gaierror):
        if error.errno == socket.EAI_AGAIN:
            return UnivertError(f"host {host}: its address could not be looked up just now; is the network up?")
        return BadInputError(f"host must be an address of this machine or its name, got {host!r}: {error.strerror}")
    if error.errno == errno.EADDRINUSE:
        return UnivertError(
            f"{address} is in use by another process (ss -ltnp shows which): stop it, or give another --port"
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return BadInputError(
            f"host must be an address of this machine, got {host!r}; 0.0.0.0 listens on all that it has"
        )
    if error.errno == errno.EACCES:
        return BadInputError(
            f"{address}: this user may not listen on ports so low; give a --port from 1024 on, behind a proxy"
        )
    return UnivertError(f"{address} cannot be listened on: {error.strerror}")


def _check(settings: Settings) -> None:
    """Open model and index once, in a process whose memory goes back: what is wrong is said once, in one line.

    Raises:
        UnivertError: they cannot be served.
    """
    told, telling = multiprocessing.Pipe(duplex=False)
    checking = multiprocessing.Process(target=_tell_what_is_wrong, args=(settings, telling))
    checking.start()
    telling.close()
    exit_code, message = 1, "the model and the index could not be loaded; the reason is above"
    with told, suppress(EOFError):
        exit_code, message = told.recv()
    checking.join()
    if message:
        raise BadInputError(message) if exit_code == BadInputError.exit_code else UnivertError(message)


def _tell_what_is_wrong(settings: Settings, telling: Connection) -> None:
    from univert.identity.vote import find_calibration
    from univert.models.runtime.engine import load_engine
    from univert.search.index import Index

    exit_code, message = 0, ""
    try:
        engine = load_engine(settings.model, settings.engine)
        Index.open(settings.index).check_model(engine.fingerprint)
        find_calibration(settings.index, settings.model, engine.fingerprint, path=settings.calibration)
    except UnivertError as error:
        exit_code, message = error.exit_code, str(error)
    telling.send((exit_code, message))
    telling.close()
