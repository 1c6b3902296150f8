"""What the routes share: the loaded model, the index, the limits, and the work from a photo to an answer."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import signal
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, Final
from urllib.parse import quote

import numpy as np
from jaxtyping import Float
from PIL import Image

from univert.core.allocator import return_freed_memory
from univert.core.errors import BadInputError
from univert.data.decode import BoxXyxyPx, ImageProblem, decode_rgb
from univert.identity.vote import ATTRIBUTES, Calibration, find_calibration, identify
from univert.models.runtime.engine import Engine, load_engine
from univert.search.index import Index
from univert.search.reader import IndexReader
from univert.search.records import Hit, Where
from univert.serving.batching import Batcher, QueueFullError, SearchBatches
from univert.serving.forms import K_DEFAULT, SearchForm
from univert.serving.headers import PhotoHeader, read_header
from univert.serving.limits import Limits, Upload
from univert.serving.observability import Metrics, RequestRecord, log
from univert.serving.problems import RETRY_AFTER_S, Problem, busy
from univert.serving.settings import Settings
from univert.serving.thumbnails import Thumbnails

MAX_WAIT_MS: Final = 2.0
"""How long a photo waits for others to join its batch."""
THREADS: Final = 2
"""Photos decoded, and index queries run, side by side in each worker."""
_LOOK_S: Final = 1.0
"""Gauges of a worker that another worker's scrape asks for are not older than this."""
_LARGE_PIXELS: Final = 12_000_000
"""Photos above this are decoded one at a time: as RGBA they take 50 MB and more."""

ITEMS: Final = "/items/"
THUMBNAIL: Final = "/thumbnail"
"""An item's address is the first and its id; its thumbnail's ends in the second."""

_PROBLEM_NAMES: Final = {"too large": "too-large", "unsupported format": "unsupported-type"}


class Service:
    """One for each application; the routes find it in `request.app.state.service`.

    Args:
        settings: of the application.

    Attributes:
        draining: the process was told to stop: it still answers, and asks clients to go elsewhere.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.limits = Limits(settings)
        self.thumbnails = Thumbnails()
        self.draining = False
        self._loaded: Loaded | None = None

    @property
    def loaded(self) -> Loaded:
        """Model and index; until they are there, the problem `not-ready`."""
        if self._loaded is None:
            raise busy("not-ready", "the model and the index are being loaded")
        return self._loaded

    def index(self, record: RequestRecord) -> Index:
        """The published version of the index, for all of one request."""
        index = self.loaded.reader.current()
        record.index_version = index.version
        return index

    def measure(self) -> None:
        """Bring the gauges up to date."""
        self.metrics.upload_bytes.set(self.limits.upload_bytes)
        if self._loaded is not None:
            index = self._loaded.reader.current()
            self.metrics.refresh_failing.set(self._loaded.reader.error is not None)
            self.metrics.queue_depth.set(self._loaded.batcher.waiting)
            self.metrics.index_version.set(index.version)
            self.metrics.index_images.set(len(index))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Load, serve, and finish what was taken."""
        engine, reader, calibration = await asyncio.to_thread(_load, self.settings)
        self._loaded = Loaded(engine, reader, calibration, self.settings, self.metrics)
        index = reader.current()
        version, images = index.version, len(index)
        log(logging.INFO, "ready", model=engine.fingerprint, engine=engine.name, index_version=version, images=images)
        looking = asyncio.create_task(self._look_after())
        try:
            yield
        finally:
            looking.cancel()
            await self._loaded.close()
            self._loaded = None
            if self.limits.rates is not None:
                self.limits.rates.close()
            log(logging.INFO, "stopped")

    async def _look_after(self) -> None:
        """Keep the gauges fresh, and stop where the first process is gone: nobody would replace or stop this one."""
        first = multiprocessing.parent_process()
        while True:
            self.measure()
            await asyncio.sleep(_LOOK_S)
            if first is not None and not first.is_alive() and not self.draining:
                log(logging.ERROR, "the first process is gone, its worker stops")
                os.kill(os.getpid(), signal.SIGTERM)


class Loaded:
    """The work behind the routes, once model and index are loaded. Make it, and use it, in one event loop."""

    def __init__(
        self, engine: Engine, reader: IndexReader, calibration: Calibration | None, settings: Settings, metrics: Metrics
    ) -> None:
        self.engine = engine
        self.reader = reader
        self.batcher = Batcher(
            engine.run, settings.max_batch, MAX_WAIT_MS, settings.queue_size, on_batch=metrics.observe_batch
        )
        self.searches = SearchBatches(engine.fingerprint, THREADS, on_batch=metrics.search_batch_size.observe)
        self._calibration = calibration
        self._settings = settings
        self._metrics = metrics
        self._decoders = ThreadPoolExecutor(THREADS, thread_name_prefix="univert-decode")
        self._one_large = asyncio.Lock()

    async def search(self, index: Index, form: SearchForm, upload: Upload, record: RequestRecord) -> dict[str, Any]:
        """The answer to a search, wholly from one version of the index, as a `SearchAnswer` has it."""
        where, identity = form.where(), None
        query: dict[str, Any] = {"like": form.like}
        async with self._deadline():
            if form.like is None:
                header, box, vector = await self.embed(upload, form.box_xyxy_px, record)
                query = {"width_px": header.width_px, "height_px": header.height_px, "box_xyxy_px": box}
                with record.stage("search"):
                    hits, neighbours = await self._find(index, vector, form.k, where)
                with record.stage("identify"):
                    identity = self._identity(neighbours)
            else:
                with record.stage("search"):
                    try:
                        (vector,) = await asyncio.to_thread(index.vectors, [form.like])
                    except BadInputError:
                        raise Problem("not-found", f"no item {form.like[:200]!r} in the index") from None
                    found = await self._asked(index, vector, form.k + 1, where)  # an item is its own nearest
                hits = [hit for hit in found if hit.id != form.like][: form.k]
        took_ms = {**record.stages_s, "total": record.total_s()}
        return {
            "query": query,
            "identity": identity,
            "hits": [self._hit_values(hit) for hit in hits],
            "index_version": index.version,
            "model": self.engine.fingerprint,
            "took_ms": {name: round(1000 * seconds, 2) for name, seconds in took_ms.items()},
        }

    async def embed(
        self, upload: Upload, box_xyxy_px: BoxXyxyPx | None, record: RequestRecord
    ) -> tuple[PhotoHeader, BoxXyxyPx | None, Float[np.ndarray, " D"]]:
        """What is known of an uploaded photo, the box within it, and their unit vector.

        The upload is released as soon as the photo is decoded.
        """
        assert upload.photo is not None
        async with self._deadline():
            with record.stage("decode"):
                header, box, pixels = await self._decode(upload.photo, box_xyxy_px)
            upload.release()
            with record.stage("embed"):
                try:
                    vector = await self.batcher.submit(pixels)
                except QueueFullError as error:
                    wait_s = max(RETRY_AFTER_S, round(error.retry_after_s))
                    raise busy("overloaded", "too many photos wait already", wait_s) from None
        return header, box, vector

    async def close(self) -> None:
        """Finish what was taken, and stop the threads."""
        await self.batcher.close()
        await self.searches.close()
        self._decoders.shutdown()
        await asyncio.to_thread(self.reader.close)

    @asynccontextmanager
    async def _deadline(self) -> AsyncIterator[None]:
        seconds = self._settings.request_deadline_s
        try:
            async with asyncio.timeout(seconds):
                yield
        except TimeoutError:
            raise Problem("deadline", f"no answer within {seconds:g} s") from None

    async def _decode(
        self, content: bytes, box_xyxy_px: BoxXyxyPx | None
    ) -> tuple[PhotoHeader, BoxXyxyPx | None, np.ndarray]:
        """What is known of a photo, the box within it, and the pixels for the network."""

        def decode(header: PhotoHeader) -> tuple[PhotoHeader, BoxXyxyPx | None, np.ndarray]:
            box = None if box_xyxy_px is None else clip_box(box_xyxy_px, header)
            rgb = decode_photo(header, detail_px=self.engine.image_size_px, box_xyxy_px=box)
            return header, box, self.engine.prepare(rgb)

        def decode_unless_large() -> PhotoHeader | tuple[PhotoHeader, BoxXyxyPx | None, np.ndarray]:
            header = read_header(content, self._settings.photo_pixels_max)
            return header if header.width_px * header.height_px > _LARGE_PIXELS else decode(header)

        loop = asyncio.get_running_loop()
        decoded = await loop.run_in_executor(self._decoders, decode_unless_large)
        if isinstance(decoded, PhotoHeader):
            async with self._one_large:
                decoded = await loop.run_in_executor(self._decoders, decode, decoded)
                await loop.run_in_executor(self._decoders, return_freed_memory)
        return decoded

    async def _find(self, index: Index, vector: np.ndarray, k: int, where: Where | None) -> tuple[list[Hit], list[Hit]]:
        """The hits, and the neighbours over all of the index that name the query."""
        naming = self._calibration.neighbours if self._calibration else 0
        if where is None:
            found = await self._asked(index, vector, max(k, naming), None)
            return found[:k], found[:naming]
        if not naming:
            return await self._asked(index, vector, k, where), []
        found, neighbours = await asyncio.gather(
            self._asked(index, vector, k, where), self._asked(index, vector, naming, None)
        )
        return found, neighbours

    async def _asked(self, index: Index, vector: np.ndarray, k: int, where: Where | None) -> list[Hit]:
        try:
            return await self.searches.search(index, vector, k, where)
        except BadInputError as error:
            raise Problem("bad-filter", str(error)) from None

    def _identity(self, neighbours: list[Hit]) -> dict[str, Any] | None:
        if self._calibration is None:
            return None
        answer = identify(neighbours, self._calibration)
        for name in ATTRIBUTES:
            self._metrics.identities.labels(name, str(getattr(answer, name).known).lower()).inc()
        return answer.to_dict()

    def _hit_values(self, hit: Hit) -> dict[str, Any]:
        """A hit as a `HitAnswer` has it."""
        columns = ("id", "distance", "vertical", "product", "brand", "style", "source", "split")
        address = self._settings.root_path + item_address(hit.id)
        similarity = self._calibration.similarity(hit.distance) if self._calibration else None
        values = {name: getattr(hit, name) for name in columns}
        return values | {"similarity": similarity, "thumbnail": address + THUMBNAIL, "item": address}


def decode_photo(header: PhotoHeader, *, detail_px: int, box_xyxy_px: BoxXyxyPx | None = None) -> Image.Image:
    """Decode a photo, or a box in it, upright and in RGB, without any metadata.

    The shorter side of the result keeps `detail_px` pixels; a large JPEG is decoded smaller than it is.
    """
    try:
        rgb = decode_rgb(
            b"".join(header.parts),
            box_xyxy_px=box_xyxy_px,
            max_pixels=header.width_px * header.height_px,
            # twice the detail for a box: its edges fall between the pixels of a reduced photo
            draft_px=detail_px if box_xyxy_px is None else 2 * detail_px,
        )
    except ImageProblem as error:
        raise Problem(_PROBLEM_NAMES.get(error.kind, "bad-photo"), str(error)) from None
    except BadInputError as error:
        raise Problem("bad-photo", str(error)) from None
    rgb.info.clear()
    return rgb


def clip_box(box_xyxy_px: BoxXyxyPx, header: PhotoHeader) -> BoxXyxyPx:
    """The part of a box that lies within a photo; `bad-box` where less than a pixel of it does."""
    x0, y0, x1, y1 = box_xyxy_px
    width, height = header.width_px, header.height_px
    clipped = max(0.0, x0), max(0.0, y0), min(float(width), x1), min(float(height), y1)
    if clipped[2] - clipped[0] < 1 or clipped[3] - clipped[1] < 1:
        raise Problem(
            "bad-box", f"box {x0:g},{y0:g},{x1:g},{y1:g} covers less than a pixel of the {width} x {height} px photo"
        )
    return clipped


def item_address(item: str) -> str:
    """Where all that is known of an item is to be had; slashes in its id are percent-encoded."""
    return f"{ITEMS}{quote(item, safe='')}"


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
        reader.current().search(engine.run(pixels)[0], K_DEFAULT, model_fingerprint=engine.fingerprint)
        calibration = find_calibration(settings.index, settings.model, engine.fingerprint, path=settings.calibration)
    except BaseException:
        reader.close()
        raise
    if calibration is None:
        log(logging.WARNING, "no calibration: answers name nothing; make one with univert calibrate")
    elif calibration.engine != engine.name:
        log(logging.WARNING, "calibrated with another engine", calibrated=calibration.engine, serving=engine.name)
    return engine, reader, calibration
