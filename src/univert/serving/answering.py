"""From a photo, or an item, to an answer: decode, embed, search, identify, each where it blocks nobody."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

import numpy as np
from jaxtyping import Float

from univert.core.allocator import return_freed_memory
from univert.core.errors import BadInputError
from univert.data.decode import BoxXyxyPx
from univert.identity.vote import ATTRIBUTES, Calibration, identify
from univert.models.runtime.engine import Engine
from univert.search.index import Index
from univert.search.records import Hit, Where
from univert.serving.batcher import Batcher, BatcherClosedError, DeadlineError, QueueFullError
from univert.serving.metrics import Metrics
from univert.serving.photos import Photo, PhotoHeader, PhotoLimits, decode_photo, read_header
from univert.serving.problems import Problem, busy
from univert.serving.queries import SearchQuery
from univert.serving.rate_limits import retry_after
from univert.serving.recall_monitor import RecallMonitor
from univert.serving.regions import GivenBox, Region, Regions, WholePhoto, clip_box
from univert.serving.request_logs import RequestRecord
from univert.serving.search_batches import SearchBatches
from univert.serving.settings import Settings
from univert.serving.uploads import Form

_LARGE_PIXELS: Final = 12_000_000
"""Photos above this are decoded one at a time: as RGBA they take 50 MB and more."""

_Decoded = tuple[tuple[int, int], Region, np.ndarray]
"""The upright photo's width and height, what counts of it, and the pixels for the network."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Embedded:
    """A photo as a vector.

    Attributes:
        width_px: of the upright photo.
        height_px: of the upright photo.
        region: the part that was embedded.
        vector: its unit vector.
    """

    width_px: int
    height_px: int
    region: Region
    vector: Float[np.ndarray, " D"]


class Answering:
    """The work behind the routes. Make it, and use it, in one event loop.

    Args:
        engine: turns photos into vectors.
        calibration: how neighbours name what is shown; None leaves identity out of the answers.
        settings: limits and sizes.
        metrics: where batches and recall are counted.
    """

    def __init__(self, engine: Engine, calibration: Calibration | None, settings: Settings, metrics: Metrics) -> None:
        self._engine = engine
        self._calibration = calibration
        self._settings = settings
        self._metrics = metrics
        self._limits = PhotoLimits(pixels_max=settings.photo_pixels_max, jpeg_scans_max=settings.jpeg_scans_max)
        self._batcher = Batcher(
            engine.run, settings.max_batch, settings.max_wait_ms, settings.queue_size, on_batch=metrics.observe_batch
        )
        self._searches = SearchBatches(
            engine.fingerprint, settings.search_threads, on_batch=metrics.search_batch_size.observe
        )
        self._recall = RecallMonitor(settings.recall_sample, engine.fingerprint, metrics)
        self._decoders = ThreadPoolExecutor(settings.decode_threads, thread_name_prefix="univert-decode")
        self._one_large = asyncio.Lock()

    @property
    def waiting(self) -> int:
        """Photos that wait for the network."""
        return self._batcher.waiting

    def deadline(self) -> float:
        """The moment on the monotonic clock by which a request that has just arrived must be answered."""
        return time.monotonic() + self._settings.request_deadline_s

    async def embed(
        self, form: Form, box_xyxy_px: BoxXyxyPx | None, record: RequestRecord, deadline: float
    ) -> Embedded:
        """The vector of an uploaded photo, or of a box in it.

        Args:
            form: holds the photo; it is released as soon as the photo is decoded.
            box_xyxy_px: the part that counts; None for the whole photo.
            record: told about the stages.
            deadline: on the monotonic clock.

        Raises:
            Problem: the photo or the box cannot be used, or the service is busy.
        """
        with record.stage("decode"):
            photo, region, pixels = await self._decode(form, box_xyxy_px)
        form.release()
        with record.stage("embed"):
            vector = await self._through_network(pixels, deadline)
        width, height = photo
        return Embedded(width_px=width, height_px=height, region=region, vector=vector)

    async def search(
        self, index: Index, form: Form, query: SearchQuery, record: RequestRecord, deadline: float
    ) -> dict[str, Any]:
        """The answer to a search, wholly from one version of the index.

        Args:
            index: the version.
            form: holds the photo, if the query has one.
            query: what is looked for.
            record: told about the stages.
            deadline: on the monotonic clock.

        Raises:
            Problem: what was asked cannot be answered, or the service is busy.
        """
        embedded = None
        if query.like is None:
            embedded = await self.embed(form, query.box_xyxy_px, record, deadline)
            vector = embedded.vector
        with record.stage("search"):
            if query.like is not None:
                vector = await self.item_vector(index, query.like)
            hits, neighbours = await self._find(index, vector, query)
        with record.stage("identify"):
            identity = self._identity(neighbours) if query.like is None else None
        return {
            "query": {
                "width_px": embedded.width_px if embedded else None,
                "height_px": embedded.height_px if embedded else None,
                "box_xyxy_px": embedded.region.box_xyxy_px if embedded else None,
                "like": query.like,
            },
            "identity": identity,
            "hits": [_hit(hit) for hit in hits],
            "index_version": index.version,
            "model": self._engine.fingerprint,
            "took_ms": took_ms(record),
        }

    async def item_vector(self, index: Index, item: str) -> Float[np.ndarray, " D"]:
        """The vector of an indexed image.

        Raises:
            Problem: `not-found`.
        """
        try:
            vectors: np.ndarray = await asyncio.to_thread(index.vectors, [item])
        except BadInputError:
            raise Problem("not-found", f"no item {item[:200]!r} in the index") from None
        first: np.ndarray = vectors[0]
        return first

    async def close(self) -> None:
        """Finish what was taken, and stop the threads."""
        await self._batcher.close()
        await self._searches.close()
        await self._recall.close()
        self._decoders.shutdown()

    async def _decode(self, form: Form, box_xyxy_px: BoxXyxyPx | None) -> _Decoded:
        content = form.photo
        assert content is not None
        regions: Regions = WholePhoto() if box_xyxy_px is None else GivenBox(box_xyxy_px)

        def decode(header: PhotoHeader) -> _Decoded:
            size = header.width_px, header.height_px
            box = None if box_xyxy_px is None else clip_box(box_xyxy_px, size)
            photo = decode_photo(header, self._limits, detail_px=self._engine.image_size_px, box_xyxy_px=box)
            region = regions(photo)[0]
            return size, region, self._prepare(photo, region)

        def look() -> tuple[PhotoHeader, _Decoded | None]:
            header = read_header(content, self._limits)
            large = header.width_px * header.height_px > _LARGE_PIXELS
            return header, None if large else decode(header)

        loop = asyncio.get_running_loop()
        header, decoded = await loop.run_in_executor(self._decoders, look)
        if decoded is None:
            async with self._one_large:
                decoded = await loop.run_in_executor(self._decoders, decode, header)
                await loop.run_in_executor(self._decoders, return_freed_memory)
        return decoded

    def _prepare(self, photo: Photo, region: Region) -> np.ndarray:
        return self._engine.prepare(photo.rgb if region.box_xyxy_px is None else photo.crop(region.box_xyxy_px))

    async def _through_network(self, pixels: np.ndarray, deadline: float) -> np.ndarray:
        try:
            return await self._batcher.submit(pixels, deadline)
        except QueueFullError as error:
            wait_s = max(self._settings.retry_after_s, retry_after(error.retry_after_s))
            raise busy("overloaded", "too many photos wait already", wait_s) from None
        except DeadlineError:
            raise Problem("deadline", f"no answer within {self._settings.request_deadline_s:g} s") from None
        except BatcherClosedError:
            raise busy("not-ready", "the service is stopping", self._settings.retry_after_s) from None

    async def _find(self, index: Index, vector: np.ndarray, query: SearchQuery) -> tuple[list[Hit], list[Hit]]:
        """The hits, and the neighbours over all of the index that name the query."""
        wanted = query.k + (query.like is not None)  # an item is its own nearest
        naming = self._calibration.neighbours if self._calibration and query.like is None else 0
        if not query.where:
            wanted = max(wanted, naming)
            found = await self._asked(index, vector, wanted, None)
            neighbours = found[:naming]
        elif naming:
            found, neighbours = await asyncio.gather(
                self._asked(index, vector, wanted, query.where), self._asked(index, vector, naming, None)
            )
        else:
            found, neighbours = await self._asked(index, vector, wanted, query.where), []
        hits = [hit for hit in found if hit.id != query.like][: query.k]
        self._recall.offer(index, vector, query.where, found, wanted)
        return hits, neighbours

    def _identity(self, neighbours: list[Hit]) -> dict[str, Any] | None:
        if self._calibration is None:
            return None
        answer = identify(neighbours, self._calibration)
        for name in ATTRIBUTES:
            self._metrics.identities.labels(name, str(getattr(answer, name).known).lower()).inc()
        return answer.to_dict()

    async def _asked(self, index: Index, vector: np.ndarray, k: int, where: Where | None) -> list[Hit]:
        try:
            return await self._searches.search(index, vector, k, where)
        except BadInputError as error:
            raise Problem("bad-filter", str(error)) from None


def took_ms(record: RequestRecord) -> dict[str, float]:
    """Milliseconds of each stage so far."""
    stages = {name: record.stages_s.get(name, 0.0) for name in ("decode", "embed", "search", "identify")}
    return {name: round(1000 * seconds, 2) for name, seconds in {**stages, "total": record.total_s()}.items()}


def _hit(hit: Hit) -> dict[str, Any]:
    address = f"/items/{quote(hit.id, safe='')}"
    return {
        "id": hit.id,
        "distance": hit.distance,
        "vertical": hit.vertical,
        "product": hit.product,
        "brand": hit.brand,
        "style": hit.style,
        "source": hit.source,
        "split": hit.split,
        "thumbnail": f"{address}/thumbnail",
        "item": address,
    }
