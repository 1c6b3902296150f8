"""What the routes share: the loaded model, the index, the limits, and the work from a photo to an answer."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final, TypeVar

import numpy as np
from fastapi import Request
from jaxtyping import Float
from PIL import Image

from univert.core.allocator import return_freed_memory
from univert.core.errors import BadInputError
from univert.data.decode import BoxXyxyPx, decode_bytes, decode_rgb
from univert.data.headers import PhotoHeader, read_header
from univert.identity.vote import ATTRIBUTES, Calibration, IdentityAnswer, identify
from univert.models.runtime.engine import Engine
from univert.search.index import Index, IndexReader
from univert.search.query import Hit, Where
from univert.serving.batching import Batcher, QueueFullError, SearchBatches
from univert.serving.limits import Limits, Upload
from univert.serving.observability import Counts, RequestRecord
from univert.serving.problems import Problem, busy
from univert.serving.settings import Settings
from univert.serving.thumbnails import Thumbnails

MAX_WAIT_MS: Final = 2.0
"""How long a photo waits for others to join its batch."""
THREADS: Final = 2
"""Photos decoded, and index queries run, side by side in each worker."""
_LARGE_BYTES: Final = 64_000_000
"""Photos that take more than this to decode are decoded one at a time, and pictures for thumbnails likewise."""
_BYTES_PER_PIXEL_MAX: Final = 9
"""What decoding may take for each pixel of `photo_pixels_max`: a PNG or a plain JPEG of that size."""

T = TypeVar("T")

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
        self.metrics = Counts()
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
        self.metrics.upload_bytes.set(self.limits.held_bytes.total())
        if self._loaded is not None:
            index = self._loaded.reader.current()
            self.metrics.refresh_failing.set(self._loaded.reader.error is not None)
            self.metrics.queue_depth.set(self._loaded.batcher.waiting)
            self.metrics.index_version.set(index.version)
            self.metrics.index_images.set(len(index))

    def start(self, loaded: Loaded) -> None:
        """Serve with this from now on."""
        self._loaded = loaded

    async def stop(self) -> None:
        """Finish what was taken."""
        await self.loaded.close()
        self._loaded = None
        self.limits.close()


class Loaded:
    """The work behind the routes, once model and index are loaded. Make it, and use it, in one event loop."""

    def __init__(
        self, engine: Engine, reader: IndexReader, calibration: Calibration | None, settings: Settings, metrics: Counts
    ) -> None:
        self.engine = engine
        self.reader = reader
        self.batcher = Batcher(
            engine.run, settings.max_batch, MAX_WAIT_MS, settings.queue_size, on_batch=metrics.observe_batch
        )
        self.searches = SearchBatches(engine.fingerprint, THREADS, on_batch=metrics.search_batch_size.observe)
        self.calibration = calibration
        self._settings = settings
        self._metrics = metrics
        self._decoders = ThreadPoolExecutor(THREADS, thread_name_prefix="univert-decode")
        self._turns, self._one_large = asyncio.Semaphore(THREADS), asyncio.Semaphore(1)

    async def search(
        self,
        index: Index,
        asked: Upload | str,
        *,
        k: int,
        where: Where | None,
        box_xyxy_px: BoxXyxyPx | None,
        record: RequestRecord,
    ) -> dict[str, Any]:
        """What answers a photo, or the id of an item, wholly from one version of the index."""
        identity = None
        query: dict[str, Any] = {}
        async with self._deadline():
            if isinstance(asked, Upload):
                header, box, vector = await self.embed(asked, box_xyxy_px, record)
                query = {"width_px": header.width_px, "height_px": header.height_px, "box_xyxy_px": box}
                with record.stage("search"):
                    hits, neighbours = await self._find(index, vector, k, where)
                with record.stage("identify"):
                    identity = await self._identity(neighbours)
            else:
                query = {"like": asked}
                with record.stage("search"):
                    try:
                        (vector,) = await asyncio.to_thread(index.vectors, [asked])
                    except BadInputError:
                        raise Problem("not-found", f"no item {asked[:200]!r} in the index") from None
                    found = await self._asked(index, vector, k + 1, where)  # an item is its own nearest
                hits = [hit for hit in found if hit.id != asked][:k]
        took_ms = {**record.stages_s, "total": record.total_s()}
        return {
            "query": query,
            "identity": identity,
            "hits": hits,
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
                except QueueFullError:
                    raise busy("overloaded", "too many photos wait already") from None
        return header, box, vector

    async def thumbnail(self, thumbnails: Thumbnails, index: Index, item: str, size_px: int) -> bytes:
        """A thumbnail as `Thumbnails.render` makes it, in turn with the photos that are decoded."""
        async with self._deadline():
            return await self._large_alone(partial(thumbnails.render, index, item, size_px))

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

        def decode(bytes_max: float) -> tuple[PhotoHeader, BoxXyxyPx | None, np.ndarray] | None:
            header = read_header(content, self._settings.photo_pixels_max)
            needed = memory_bytes(
                header, self._settings.photo_pixels_max, reduced=box_xyxy_px is None and not header.lacks_end
            )
            if needed > bytes_max:
                return None
            box = None if box_xyxy_px is None else clip_box(box_xyxy_px, header)
            rgb = decode_photo(header, detail_px=self.engine.image_size_px, box_xyxy_px=box)
            return header, box, self.engine.prepare(rgb)

        try:
            return await self._large_alone(decode)
        except BadInputError as error:
            raise Problem(_PROBLEM_NAMES.get(getattr(error, "kind", ""), "bad-photo"), str(error)) from None

    async def _large_alone(self, work: Callable[[float], T | None]) -> T:
        """Run work that is given the bytes it may take, and gives None where it would need more: then it runs alone."""

        def alone() -> T:
            try:
                done = work(math.inf)
                assert done is not None
                return done
            finally:
                return_freed_memory()

        done = await self._in_turn(self._turns, work, _LARGE_BYTES)
        return done if done is not None else await self._in_turn(self._one_large, alone)

    async def _in_turn(self, turns: asyncio.Semaphore, work: Callable[..., T], *given: Any) -> T:
        """Run something in a thread when it is its turn.

        The turn is over when the thread is done, even if nobody waits for it any more: what was given up at its
        deadline must not leave room for another. And what still waits then is forgotten, with the photo it holds.
        """
        await turns.acquire()
        running = asyncio.get_running_loop().run_in_executor(self._decoders, work, *given)

        def over(done: asyncio.Future[T]) -> None:
            turns.release()
            if not done.cancelled():
                done.exception()  # told to whoever waits, if anybody does

        running.add_done_callback(over)
        return await asyncio.shield(running)

    async def _find(self, index: Index, vector: np.ndarray, k: int, where: Where | None) -> tuple[list[Hit], list[Hit]]:
        """The hits, and the neighbours over all of the index that name the query."""
        naming = self.calibration.neighbours if self.calibration else 0
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

    async def _identity(self, neighbours: list[Hit]) -> IdentityAnswer | None:
        if self.calibration is None:
            return None
        answer = await asyncio.to_thread(identify, neighbours, self.calibration)
        for name in ATTRIBUTES:
            self._metrics.identities.labels(name, str(getattr(answer, name).known).lower()).inc()
        return answer


def service_of(request: Request) -> Service:
    """The service that a request came to."""
    service: Service = request.app.state.service
    return service


def record_of(request: Request) -> RequestRecord:
    """What is known of a request; made by the middleware."""
    record: RequestRecord = request.state.record
    return record


def decode_photo(header: PhotoHeader, *, detail_px: int, box_xyxy_px: BoxXyxyPx | None = None) -> Image.Image:
    """Decode a photo, or a box in it, upright and in RGB, without any metadata.

    The shorter side of the result keeps `detail_px` pixels; a large JPEG is decoded smaller than it is.
    """
    rgb = decode_rgb(
        b"".join(header.parts),
        box_xyxy_px=box_xyxy_px,
        max_pixels=header.width_px * header.height_px,
        # twice the detail for a box: its edges fall between the pixels of a reduced photo
        draft_px=detail_px if box_xyxy_px is None else 2 * detail_px,
    )
    rgb.info.clear()
    return rgb


def memory_bytes(header: PhotoHeader, pixels_max: int, *, reduced: bool) -> int:
    """What decoding a photo takes at most; `reduced`: no box in it is asked for, so that a JPEG is decoded smaller.

    What could take more than the largest plain JPEG does is `too-large`: a large WebP, above all.
    """
    pixels, limit = header.width_px * header.height_px, _BYTES_PER_PIXEL_MAX * pixels_max
    needed = decode_bytes(header.parts, pixels, reduced=False)
    if needed > limit:
        size, over = f"{header.width_px} x {header.height_px}", f"{needed / 1e6:,.0f} MB of {limit / 1e6:,.0f}"
        said = f"{size} pixels of this kind take {over} to decode; make the photo smaller, or send a plain JPEG"
        raise Problem("too-large", said)
    return decode_bytes(header.parts, pixels, reduced=reduced)


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
