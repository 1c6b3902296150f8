"""What a worker does beside its requests: load, look after itself every second, and stop in good order."""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import logging
import multiprocessing
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import numpy as np

from univert.core.errors import BadInputError
from univert.identity.vote import Calibration, calibration_places, find_calibration
from univert.models.runtime.engine import Engine, load_engine
from univert.search.index import IndexReader
from univert.serving.observability import log
from univert.serving.service import Loaded, Service
from univert.serving.settings import Settings

_LOOK_S: Final = 1.0
"""Gauges of a worker that another worker's scrape asks for are not older than this."""
_BLOCKED_S: Final = 3.0
"""A worker whose event loop stands still for this long, and for longer than an answer may take, is replaced."""
_MANY_CONNECTIONS: Final = 250
"""From here on the log says so, and again each time they have doubled."""
_WARM_K: Final = 24


@asynccontextmanager
async def running(service: Service) -> AsyncIterator[None]:
    """Load model and index, serve, and finish what was taken."""
    engine, reader, calibration = await asyncio.to_thread(_load, service.settings)
    service.start(Loaded(engine, reader, calibration, service.settings, service.metrics))
    index = reader.current()
    version, images = index.version, len(index)
    log(logging.INFO, "ready", model=engine.fingerprint, engine=engine.name, index_version=version, images=images)
    looking = [asyncio.create_task(work(service)) for work in (_show_life, _look_after, _renew_calibration)]
    try:
        yield
    finally:
        for task in looking:
            task.cancel()
        faulthandler.cancel_dump_traceback_later()
        await service.stop()
        log(logging.INFO, "stopped")


async def _show_life(service: Service) -> None:
    """Have a worker whose event loop stands still ended: by a timer outside Python, which this task puts off.

    The stacks of its threads go to stderr, and the first process starts another.
    """
    blocked_s = max(_BLOCKED_S, service.settings.request_deadline_s)
    while multiprocessing.parent_process() is not None:
        faulthandler.dump_traceback_later(blocked_s, exit=True, file=sys.__stderr__ or sys.stderr)
        await asyncio.sleep(_LOOK_S)


async def _look_after(service: Service) -> None:
    """Keep the gauges fresh, and stop where the first process is gone: nobody would replace or stop this one."""
    first = multiprocessing.parent_process()
    without_clients, said = _open_sockets(), _MANY_CONNECTIONS // 2
    while True:
        connections = max(0, await asyncio.to_thread(_open_sockets) - without_clients)
        service.metrics.connections.set(connections)
        if connections >= 2 * said or connections < said // 4:
            said = max(_MANY_CONNECTIONS // 2, connections)
            if connections >= _MANY_CONNECTIONS:
                log(logging.WARNING, "many connections", connections=connections)
        service.measure()
        await asyncio.sleep(_LOOK_S)
        if first is not None and not first.is_alive() and not service.draining:
            log(logging.ERROR, "the first process is gone, its worker stops")
            os.kill(os.getpid(), signal.SIGTERM)


async def _renew_calibration(service: Service) -> None:
    """Take up a calibration that was made anew."""
    settings, loaded = service.settings, service.loaded
    known = await asyncio.to_thread(_calibration_files, settings)
    while True:
        await asyncio.sleep(settings.refresh_s)
        files = await asyncio.to_thread(_calibration_files, settings)
        if files == known:
            continue
        known = files
        try:
            loaded.calibration = await asyncio.to_thread(_find_calibration, settings, loaded.engine)
            log(logging.INFO, "calibration taken up")
        except BadInputError as error:
            log(logging.ERROR, "the new calibration cannot be used, the old one stays", reason=str(error))


def _open_sockets() -> int:
    """Sockets of this process; 0 where the system does not tell."""
    count = 0
    with contextlib.suppress(OSError):  # no /proc
        for link in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(OSError):  # closed while we looked
                count += str(link.readlink()).startswith("socket:")
    return count


def _calibration_files(settings: Settings) -> list[tuple[Path, int, int]]:
    """The files that hold the calibration, each with what changes when it is written."""
    places = [settings.calibration] if settings.calibration else calibration_places(settings.index, settings.model)
    return [(place, place.stat().st_mtime_ns, place.stat().st_ino) for place in places if place.is_file()]


def _find_calibration(settings: Settings, engine: Engine) -> Calibration | None:
    found = find_calibration(settings.index, settings.model, engine.fingerprint, path=settings.calibration)
    if found is None:
        log(logging.WARNING, "no calibration: answers name nothing; make one with univert calibrate")
    elif found.engine != engine.name:
        log(logging.WARNING, "calibrated with another engine", calibrated=found.engine, serving=engine.name)
    return found


def _load(settings: Settings) -> tuple[Engine, IndexReader, Calibration | None]:
    engine = load_engine(settings.model, settings.engine, threads=settings.threads or None, workers=settings.workers)
    reader = IndexReader.open(
        settings.index,
        refresh_s=settings.refresh_s,
        # what another model published is passed over: requests go on with the version at hand
        check=lambda index: index.check_model(engine.fingerprint),
    )
    try:
        # search once, so that the first query does not wait for the index to be opened and read
        pixels = np.zeros((1, 3, engine.image_size_px, engine.image_size_px), np.uint8)
        reader.current().search(engine.run(pixels)[0], _WARM_K, model_fingerprint=engine.fingerprint)
        return engine, reader, _find_calibration(settings, engine)
    except BaseException:
        reader.close()
        raise
