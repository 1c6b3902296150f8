"""What the routes share: the loaded model, the index, and the limits, made when the application starts."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from fastapi import Request

from univert.core.errors import UnivertError
from univert.identity.vote import Calibration, find_calibration
from univert.models.runtime.engine import Engine, load_engine
from univert.search.index import Index
from univert.search.reader import IndexReader
from univert.serving.answering import Answering
from univert.serving.lifecycle import Lifecycle
from univert.serving.metrics import Metrics
from univert.serving.problems import busy
from univert.serving.queries import K_DEFAULT
from univert.serving.request_logs import RequestRecord, log
from univert.serving.settings import Settings
from univert.serving.thumbnails import Thumbnails
from univert.serving.uploads import UploadLimits, UploadMemory


@dataclass(frozen=True, kw_only=True, slots=True)
class Loaded:
    """What takes time to load.

    Attributes:
        engine: the model.
        reader: the index, at the newest published version that this model can search.
        answering: the work behind the routes.
    """

    engine: Engine
    reader: IndexReader
    answering: Answering


class Service:
    """One for each application; the routes find it in `request.app.state.service`.

    Args:
        settings: of the application.
        metrics: of the application.
        lifecycle: of the application.
    """

    def __init__(self, settings: Settings, metrics: Metrics, lifecycle: Lifecycle) -> None:
        self.settings = settings
        self.metrics = metrics
        self.lifecycle = lifecycle
        self.memory = UploadMemory(settings.uploads_bytes_max)
        self.upload_limits = UploadLimits(
            photo_bytes_max=settings.photo_bytes_max,
            body_deadline_s=settings.body_deadline_s,
            retry_after_s=settings.retry_after_s,
        )
        self.counts: tuple[int, dict[str, Any]] | None = None
        """How often the values of the filters occur, and in which version."""
        self.thumbnails = Thumbnails(settings.thumbnail_cache_bytes)
        self._loaded: Loaded | None = None

    @property
    def loaded(self) -> Loaded:
        """Model and index.

        Raises:
            Problem: `not-ready`: they are not there yet.
        """
        if self._loaded is None:
            raise busy("not-ready", "the model and the index are being loaded", self.settings.retry_after_s)
        return self._loaded

    def index(self, record: RequestRecord) -> Index:
        """The published version of the index, for all of one request.

        Raises:
            Problem: `not-ready`: nothing is loaded yet.
        """
        index = self.loaded.reader.current()
        record.index_version = index.version
        return index

    def measure(self) -> None:
        """Bring the gauges up to date."""
        self.metrics.upload_bytes.set(self.memory.held_bytes)
        if self._loaded is not None:
            index = self._loaded.reader.current()
            self.metrics.refresh_failing.set(self._loaded.reader.error is not None)
            self.metrics.queue_depth.set(self._loaded.answering.waiting)
            self.metrics.index_version.set(index.version)
            self.metrics.index_images.set(len(index))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Load, serve, and finish what was taken.

        Raises:
            UnivertError: the model or the index cannot be used.
        """
        try:
            loaded = await self._load()
        except UnivertError as error:
            self.lifecycle.failure = error
            raise
        self._loaded = loaded
        self.lifecycle.loaded = True
        measuring = asyncio.create_task(self._keep_measuring())
        index = loaded.reader.current()
        log(
            logging.INFO,
            "ready",
            model=loaded.engine.fingerprint,
            engine=loaded.engine.name,
            index_version=index.version,
            images=len(index),
        )
        try:
            with self.lifecycle.draining_on_stop(self.settings.drain_s):
                yield
        finally:
            self.lifecycle.loaded = False
            measuring.cancel()
            await asyncio.gather(measuring, return_exceptions=True)
            await loaded.answering.close()
            await asyncio.to_thread(loaded.reader.close)
            log(logging.INFO, "stopped")

    async def _load(self) -> Loaded:
        settings = self.settings
        engine = await asyncio.to_thread(
            load_engine, settings.model, settings.engine, threads=settings.threads or None, workers=settings.workers
        )
        reader = await asyncio.to_thread(
            IndexReader.open,
            settings.index,
            refresh_s=settings.refresh_s,
            # what another model published is passed over: requests go on with the version at hand
            check=lambda index: index.check_model(engine.fingerprint),
        )
        try:
            await asyncio.to_thread(_warm_up, reader.current(), engine)
            calibration = await asyncio.to_thread(_calibration, settings, engine)
        except BaseException:
            reader.close()
            raise
        return Loaded(engine=engine, reader=reader, answering=Answering(engine, calibration, settings, self.metrics))

    async def _keep_measuring(self) -> None:
        """Gauges of a worker that another worker's scrape asks for must not be older than a second."""
        while True:
            self.measure()
            await asyncio.sleep(1)


def service_of(request: Request) -> Service:
    """The service that a request came to."""
    service: Service = request.app.state.service
    return service


def record_of(request: Request) -> RequestRecord:
    """What is known of a request; made by the gate."""
    record: RequestRecord = request.scope["univert.record"]
    return record


def _warm_up(index: Index, engine: Engine) -> None:
    """Search once, so that the first query does not wait for the index to be opened and read."""
    pixels = np.zeros((1, 3, engine.image_size_px, engine.image_size_px), np.uint8)
    index.search(engine.run(pixels)[0], K_DEFAULT, model_fingerprint=engine.fingerprint)


def _calibration(settings: Settings, engine: Engine) -> Calibration | None:
    found = find_calibration(settings.index, settings.model, engine.fingerprint, path=settings.calibration)
    if found is None:
        log(logging.WARNING, "no calibration: answers name nothing; make one with univert calibrate")
    elif found.engine != engine.name:
        log(logging.WARNING, "calibrated with another engine", calibrated=found.engine, serving=engine.name)
    return found
