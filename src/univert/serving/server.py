"""The service as processes: Granian's workers behind one address, and what they share."""

from __future__ import annotations

import contextlib
import errno
import logging
import multiprocessing
import os
import resource
import socket
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from granian import Granian
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.log import LogLevels

from univert.core.errors import BadInputError, UnivertError
from univert.serving.observability import is_loopback, log, logging_config
from univert.serving.settings import METRICS_VARIABLE, RATE_FILE_VARIABLE, Settings, load_settings
from univert.serving.shared import make_rate_file

if TYPE_CHECKING:
    from univert.serving.rating import RatingSettings

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
        BadInputError: the host can never be listened on, or the model, the detector, the index or the calibration is
            wrong.
        UnivertError: what may pass: the port is in use, the object store is away, workers end again and again.
    """
    # A worker searches for several requests side by side: more threads for each would only wait for one another.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    multiprocessing.set_start_method("spawn", force=True)  # threads of the libraries do not survive a fork
    port = free_port(settings.host, settings.port)
    with ProcessPoolExecutor(1) as elsewhere:
        elsewhere.submit(_open_once, settings).result()
    with contextlib.ExitStack() as kept:
        if settings.workers > 1:
            _share(kept)
        if not settings.allowed_hosts and not is_loopback(settings.host):
            log(logging.WARNING, "requests to any host name are answered; name the service's own in allowed_hosts")
        run_workers("univert.serving.server:worker_app", settings, port)


def run_workers(factory: str, settings: Settings | RatingSettings, port: int) -> None:
    """Serve what a factory makes, in each worker, until told to stop; the log says where.

    Args:
        factory: `module:function`, which takes nothing and returns an ASGI application.
        settings: of the service.
        port: see `free_port`.

    Raises:
        UnivertError: workers end again and again.
    """
    server = Granian(
        factory,
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
        log_dictconfig=logging_config(),
    )
    address = f"[{settings.host}]" if ":" in settings.host else settings.host
    log(logging.INFO, "listening", address=f"http://{address}:{port}")
    try:
        server.serve()
    except SystemExit as ended:
        raise UnivertError("the workers ended again and again; the log says why") from ended


def _share(kept: contextlib.ExitStack) -> None:
    """Make the folder through which the workers share counts and rates; without room for it each has its own."""
    try:
        folder = kept.enter_context(tempfile.TemporaryDirectory(prefix="univert-serve-", ignore_cleanup_errors=True))
        make_rate_file(Path(folder) / "rates")
    except OSError as error:
        log(logging.WARNING, "no room for what the workers share: each counts for itself", reason=str(error))
        return
    os.environ[METRICS_VARIABLE] = folder
    os.environ[RATE_FILE_VARIABLE] = str(Path(folder) / "rates")


def worker_app() -> Any:
    """What a worker serves."""
    from granian.utils.proxies import wrap_asgi_with_proxy_headers

    from univert.core.allocator import reuse_freed_memory
    from univert.serving.app import create_app

    reuse_freed_memory(_LARGEST_KEPT_BYTES)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)  # idle connections take one each, and are meant to be served
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
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
            said = f"{address} cannot be listened on: {error.strerror}; another --host or --port may do"
            wrong = isinstance(error, socket.gaierror) and error.errno != socket.EAI_AGAIN
            if wrong or error.errno in (errno.EADDRNOTAVAIL, errno.EACCES):
                raise BadInputError(said) from None
            raise UnivertError(said) from None
        found: int = tried.getsockname()[1]
        return found


def _open_once(settings: Settings) -> None:
    """Open what is served in a process whose memory goes back, so that what is wrong is said once, in one line."""
    from univert.detection.engine import load_detector
    from univert.identity.vote import find_calibration
    from univert.models.runtime.engine import load_engine
    from univert.search.index import Index

    engine = load_engine(settings.model, settings.engine)
    if settings.detector is not None:
        load_detector(settings.detector)
    Index.open(settings.index).check_model(engine.fingerprint)
    find_calibration(settings.index, settings.model, engine.fingerprint, path=settings.calibration)
