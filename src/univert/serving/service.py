"""What the routes share: the loaded model, the index, the limits, and the work from a photo to an answer."""

from __future__ import annotations

import asyncio
import importlib.util
import math
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from functools import partial
from typing import Any, Final, TypeVar

import numpy as np
from fastapi import Request
from jaxtyping import Float

from univert.core.allocator import return_freed_memory
from univert.core.errors import BadInputError
from univert.data.decode import BoxXyxyPx
from univert.data.headers import PhotoHeader
from univert.detection.engine import Detector, FoundItem
from univert.identity.vote import ATTRIBUTES, Calibration, IdentityAnswer, identify
from univert.models.runtime.engine import Engine
from univert.search.index import Index, IndexReader
from univert.search.query import Hit, Where
from univert.serving.batching import Batcher, QueueFullError, SearchBatches
from univert.serving.limits import Limits, Upload
from univert.serving.observability import Counts, RequestRecord
from univert.serving.photos import SeenPhoto, look_for_items, see_photo
from univert.serving.problems import Problem, busy
from univert.serving.settings import Settings
from univert.serving.thumbnails import Thumbnails
from univert.text_search import TextSearch, text_search_folder

MAX_WAIT_MS: Final = 2.0
"""How long a photo waits for others to join its batch."""
THREADS: Final = 2
"""Photos decoded, and index queries run, side by side in each worker."""
_LARGE_BYTES: Final = 64_000_000
"""Photos that take more than this to decode are decoded one at a time, and pictures for thumbnails likewise."""

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
        self,
        engine: Engine,
        reader: IndexReader,
        calibration: Calibration | None,
        detector: Detector | None,
        settings: Settings,
        metrics: Counts,
    ) -> None:
        self.engine = engine
        self.reader = reader
        self.detector = detector
        self.batcher = Batcher(
            engine.run, settings.max_batch, MAX_WAIT_MS, settings.queue_size, on_batch=metrics.observe_batch
        )
        self.searches = SearchBatches(engine.fingerprint, THREADS, on_batch=metrics.search_batch_size.observe)
        self.calibration = calibration
        self._settings = settings
        self._metrics = metrics
        self._decoders = ThreadPoolExecutor(THREADS, thread_name_prefix="univert-decode")
        self._texts: tuple[tuple[int, int], asyncio.Future[TextSearch]] | None = None
        self._texts_thread = ThreadPoolExecutor(1, thread_name_prefix="univert-words")
        self._turns, self._one_large = asyncio.Semaphore(THREADS), asyncio.Semaphore(1)

    async def search(
        self,
        index: Index,
        asked: Upload | str,
        *,
        k: int,
        where: Where | None,
        box_xyxy_px: BoxXyxyPx | None,
        items_max: int = 0,
        record: RequestRecord,
    ) -> dict[str, Any]:
        """What answers a photo and each item found in it, or the id of an item, wholly from one version of the index.

        Without a box, at most `items_max` items are looked for.
        """
        identity = None
        query: dict[str, Any] = {}
        items: list[dict[str, Any]] = []
        detector = None
        async with self._deadline():
            if isinstance(asked, Upload):
                seen, vectors = await self.embed(asked, box_xyxy_px, record, items_max=items_max)
                query = _size(seen)
                with record.stage("search"):
                    (hits, *of_items), neighbours = await self._find(index, vectors, k, where)
                with record.stage("identify"):
                    identity, *named = await self._identities(neighbours)
                for item, near, name in zip(seen.items, of_items, named, strict=True):
                    items.append({**asdict(item), "identity": name, "hits": near})
                if self.detector is not None and box_xyxy_px is None and items_max:
                    detector = self.detector.fingerprint
            else:
                query = {"like": asked}
                with record.stage("search"):
                    try:
                        vectors = await asyncio.to_thread(index.vectors, [asked])
                    except BadInputError:
                        raise Problem("not-found", f"no item {asked[:200]!r} in the index") from None
                    (near,) = await self._asked(index, vectors, k + 1, where)  # an item is its own nearest
                hits = [hit for hit in near if hit.id != asked][:k]
        return self._answer(index, record, query=query, identity=identity, hits=hits, items=items, detector=detector)

    async def search_text(
        self,
        index: Index,
        text: str,
        upload: Upload | None,
        *,
        k: int,
        where: Where | None,
        box_xyxy_px: BoxXyxyPx | None,
        record: RequestRecord,
    ) -> dict[str, Any]:
        """What answers words, alone or with a photo or a box in it, from one version of the index."""
        query: dict[str, Any] = {}
        photo = None
        async with self._deadline():
            found_by = await self._text_search(index)
            if upload is not None:
                seen, (photo,) = await self.embed(upload, box_xyxy_px, record)
                query = _size(seen)
            with record.stage("search"):
                loop, ask = (
                    asyncio.get_running_loop(),
                    partial(found_by.search, index, text, k, where=where, photo=photo),
                )
                try:
                    found = await loop.run_in_executor(self._texts_thread, ask)
                except BadInputError as error:
                    raise Problem("bad-filter", str(error)) from None
        return self._answer(index, record, query=query | found.query._asdict(), hits=found.hits)

    def takes_text(self) -> bool:
        """Whether words can be searched with: the index has their folder, and the extra is installed."""
        with suppress(BadInputError):
            folder = text_search_folder(self._settings.index)
            return folder.is_dir() and importlib.util.find_spec("sentence_transformers") is not None
        return False

    async def _text_search(self, index: Index) -> TextSearch:
        """What finds by words: loaded when the first words come, and when it was made anew."""
        try:
            there = text_search_folder(self._settings.index).stat()
            made = there.st_ino, there.st_mtime_ns
        except (BadInputError, OSError):
            made = (0, 0)
        if self._texts is None or self._texts[0] != made:
            load = partial(TextSearch.load, index)
            self._texts = made, asyncio.get_running_loop().run_in_executor(self._texts_thread, load)
        loading = self._texts[1]
        await asyncio.wait([loading], timeout=self._settings.request_deadline_s / 2)
        if not loading.done():
            raise busy("not-ready", "what finds by words is being loaded")
        try:
            return loading.result()
        except BadInputError as error:
            self._texts = None
            raise Problem("no-words", str(error)) from None

    def _answer(self, index: Index, record: RequestRecord, **found: Any) -> dict[str, Any]:
        """What was found, as a `SearchAnswer` has it."""
        took_ms = {**record.stages_s, "total": record.total_s()}
        return {
            "identity": None,
            "items": [],
            "detector": None,
            **found,
            "index_version": index.version,
            "model": self.engine.fingerprint,
            "took_ms": {name: round(1000 * seconds, 2) for name, seconds in took_ms.items()},
        }

    async def embed(
        self, upload: Upload, box_xyxy_px: BoxXyxyPx | None, record: RequestRecord, *, items_max: int = 0
    ) -> tuple[SeenPhoto, Float[np.ndarray, "B D"]]:
        """What is seen of an uploaded photo or a box in it, and unit vectors: its own, then one of each item.

        The upload is released as soon as the photo is decoded.
        """
        see = partial(
            see_photo, engine=self.engine, box_xyxy_px=box_xyxy_px, detector=self.detector, items_max=items_max
        )
        async with self._deadline():
            with record.stage("decode"):
                seen = await self._look(upload, see)
            if seen.detect_s:
                record.stages_s["decode"] -= seen.detect_s
                record.stages_s["detect"] = seen.detect_s
            with record.stage("embed"):
                try:
                    vectors = await self.batcher.submit(seen.pixels)
                except QueueFullError:
                    raise busy("overloaded", "too many photos wait already") from None
        return seen, vectors

    async def detect(self, upload: Upload, record: RequestRecord) -> tuple[PhotoHeader, list[FoundItem]]:
        """What is known of an uploaded photo, and the items found in it."""
        assert self.detector is not None  # or there would be no route
        async with self._deadline():
            with record.stage("detect"):
                return await self._look(upload, partial(look_for_items, detector=self.detector))

    async def thumbnail(self, thumbnails: Thumbnails, index: Index, item: str, size_px: int) -> bytes:
        """A thumbnail as `Thumbnails.render` makes it, in turn with the photos that are decoded."""
        async with self._deadline():
            return await self._large_alone(partial(thumbnails.render, index, item, size_px))

    async def close(self) -> None:
        """Finish what was taken, and stop the threads."""
        await self.batcher.close()
        await self.searches.close()
        self._decoders.shutdown()
        self._texts_thread.shutdown()
        await asyncio.to_thread(self.reader.close)

    @asynccontextmanager
    async def _deadline(self) -> AsyncIterator[None]:
        seconds = self._settings.request_deadline_s
        try:
            async with asyncio.timeout(seconds):
                yield
        except TimeoutError:
            raise Problem("deadline", f"no answer within {seconds:g} s") from None

    async def _look(self, upload: Upload, look: Callable[..., T | None]) -> T:
        """Let a function of `univert.serving.photos` look at an upload, in turn, and release the upload."""
        assert upload.photo is not None
        work = partial(look, upload.photo, pixels_max=self._settings.photo_pixels_max)
        try:
            return await self._large_alone(work)
        except BadInputError as error:
            raise Problem(_PROBLEM_NAMES.get(getattr(error, "kind", ""), "bad-photo"), str(error)) from None
        finally:
            upload.release()

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

    async def _find(
        self, index: Index, vectors: np.ndarray, k: int, where: Where | None
    ) -> tuple[list[list[Hit]], list[list[Hit]]]:
        """The hits of each vector, and the neighbours over all of the index that name it."""
        naming = self.calibration.neighbours if self.calibration else 0
        if where is None:
            found = await self._asked(index, vectors, max(k, naming), None)
            return [hits[:k] for hits in found], [hits[:naming] for hits in found]
        if not naming:
            return await self._asked(index, vectors, k, where), [[] for _ in vectors]
        return await asyncio.gather(self._asked(index, vectors, k, where), self._asked(index, vectors, naming, None))

    async def _asked(self, index: Index, vectors: np.ndarray, k: int, where: Where | None) -> list[list[Hit]]:
        try:
            return await self.searches.search(index, vectors, k, where)
        except BadInputError as error:
            raise Problem("bad-filter", str(error)) from None

    async def _identities(self, found: Sequence[list[Hit]]) -> Sequence[IdentityAnswer | None]:
        """What each set of neighbours names."""
        calibration = self.calibration
        if calibration is None:
            return [None] * len(found)
        answers = await asyncio.to_thread(lambda: [identify(neighbours, calibration) for neighbours in found])
        for answer in answers:
            for name in ATTRIBUTES:
                self._metrics.identities.labels(name, str(getattr(answer, name).known).lower()).inc()
        return answers


def _size(seen: SeenPhoto) -> dict[str, Any]:
    """What is told of a photo."""
    return {"width_px": seen.header.width_px, "height_px": seen.header.height_px, "box_xyxy_px": seen.box_xyxy_px}


def service_of(request: Request) -> Service:
    """The service that a request came to."""
    service: Service = request.app.state.service
    return service


def record_of(request: Request) -> RequestRecord:
    """What is known of a request; made by the middleware."""
    record: RequestRecord = request.state.record
    return record
