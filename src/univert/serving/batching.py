"""What comes together is computed together: photos in the network, queries in the index."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
from jaxtyping import Float

from univert.core.errors import UnivertError
from univert.search.index import Index
from univert.search.query import Hit, Where

TOGETHER_MAX: Final = 32
"""Queries that go to the index together."""
_LONGEST_WAIT_S: Final = 0.5
"""Of a search for company, whatever held up the last one."""


class QueueFullError(UnivertError, RuntimeError):
    """More requests wait than may."""


@dataclass(eq=False, slots=True)
class _Waiting:
    array: np.ndarray
    answer: asyncio.Future[np.ndarray]


class Batcher:
    """Collects arrays from concurrent requests, runs them in batches in a thread, and hands each its row back.

    One batch runs at a time; what arrives meanwhile forms the next. A batch waits for company only when there has
    been some: until as many wait as the largest of the last few batches held, and for `max_wait_ms` at most. A lone
    client is thus never kept waiting.

    Make it, and use it, in one event loop.

    Args:
        run: from a batch (B, ...) to an array of B rows; called in a thread, one call at a time.
        max_batch: largest B.
        max_wait_ms: longest wait for company, in milliseconds.
        queue_size: how many requests may wait; the one that runs is not counted.
        on_batch: told the size of each batch and the seconds it took.
    """

    def __init__(
        self,
        run: Callable[[np.ndarray], np.ndarray],
        max_batch: int = 32,
        max_wait_ms: float = 4.0,
        queue_size: int = 256,
        *,
        on_batch: Callable[[int, float], None] | None = None,
    ) -> None:
        self._run = run
        self._max_batch = max_batch
        self._max_wait_s = max_wait_ms / 1000
        self._queue_size = queue_size
        self._on_batch = on_batch
        self._queue: deque[_Waiting] = deque()
        self._arrived = asyncio.Event()
        self._closing = False
        self._recent: deque[int] = deque([1], maxlen=4)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="univert-batch")
        self._task: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """How many requests wait for their batch."""
        return len(self._queue)

    async def submit(self, array: np.ndarray) -> Float[np.ndarray, " D"]:
        """One request: its row of the batch's answer. One that is cancelled before it has begun is never computed.

        Raises:
            QueueFullError: too many wait; nothing was queued.
        """
        if self._closing:
            raise RuntimeError("the batcher is closed")
        if len(self._queue) >= self._queue_size:  # who has given up must not keep others out
            self._queue = deque(entry for entry in self._queue if not entry.answer.done())
        if len(self._queue) >= self._queue_size:
            raise QueueFullError(f"{len(self._queue)} requests wait already; try again in a second")
        entry = _Waiting(array, asyncio.get_running_loop().create_future())
        self._queue.append(entry)
        self._arrived.set()
        if self._task is None:
            self._task = asyncio.create_task(self._work(), name="univert-batcher")
        return await entry.answer

    async def close(self) -> None:
        """Finish the requests that were taken, and stop the thread. Nothing may be submitted any more."""
        self._closing = True
        self._arrived.set()
        if self._task is not None:
            await self._task
        self._thread.shutdown()

    async def _work(self) -> None:
        while True:
            while not self._queue:
                if self._closing:
                    return
                self._arrived.clear()
                await self._arrived.wait()
            await self._wait_for_company()
            batch = self._take()
            if batch:
                await self._answer(batch)

    async def _wait_for_company(self) -> None:
        """Give those a moment who, going by the last batches, are about to come."""
        company = min(self._max_batch, max(self._recent))
        until = time.monotonic() + self._max_wait_s
        while len(self._queue) < company and not self._closing:
            left = until - time.monotonic()
            if left <= 0:
                return
            self._arrived.clear()
            try:
                async with asyncio.timeout(left):
                    await self._arrived.wait()
            except TimeoutError:
                return

    def _take(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        while self._queue and len(batch) < self._max_batch:
            entry = self._queue.popleft()
            if not entry.answer.done():  # else its caller is gone
                batch.append(entry)
        return batch

    async def _answer(self, batch: list[_Waiting]) -> None:
        started = time.monotonic()
        if not await _answer_all(self._thread, self._rows, batch):
            return
        seconds = time.monotonic() - started
        self._recent.append(len(batch))
        if self._on_batch is not None:
            self._on_batch(len(batch), seconds)

    def _rows(self, batch: list[_Waiting]) -> np.ndarray:
        return self._run(np.stack([entry.array for entry in batch]))


@dataclass(eq=False, slots=True)
class _Query:
    index: Index
    vector: np.ndarray
    k: int
    where: Where | None
    answer: asyncio.Future[list[Hit]]


class SearchBatches:
    """Groups concurrent queries by version of the index and filter, and runs each group as one.

    A query goes at once while a thread is free and none of its group runs; what arrives meanwhile forms the next
    group. Without a filter 32 queries together take a fifth of the time that they take one by one, so such a group
    waits until as many are there as were busy when the last one ended, but at most twice as long as that one took,
    and never longer than half a second. A client that has been alone is not kept waiting. `k` may differ within a
    group: the largest is asked for, and each query gets its share.

    Make it, and use it, in one event loop.

    Args:
        model_fingerprint: of the model whose vectors these are.
        threads: groups that run side by side, and threads that a long search uses.
        on_batch: told the size of each group.
    """

    def __init__(
        self, model_fingerprint: str, threads: int = 2, *, on_batch: Callable[[int], None] | None = None
    ) -> None:
        self._model_fingerprint = model_fingerprint
        self._threads = threads
        self._on_batch = on_batch
        self._waiting: dict[tuple[int, str], list[_Query]] = {}  # by version and filter, in the order of arrival
        self._running: dict[tuple[int, str], asyncio.Task[None]] = {}
        self._company = 0  # so many make a group without a filter; 0: any number
        self._wait: asyncio.TimerHandle | None = None
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="univert-search")

    async def search(self, index: Index, vector: Float[np.ndarray, " D"], k: int, where: Where | None) -> list[Hit]:
        """The `k` images of one version of the index nearest to a vector.

        Raises:
            BadInputError: see `univert.search.index.Index.search`.
        """
        query = _Query(index, vector, k, where, asyncio.get_running_loop().create_future())
        self._waiting.setdefault((id(index), repr(sorted((where or {}).items()))), []).append(query)
        # Those that left the network together arrive in one turn of the loop: the next turn takes them together.
        asyncio.get_running_loop().call_soon(self._start)
        return await query.answer

    async def close(self) -> None:
        """Finish what was asked, and stop the threads."""
        while self._waiting or self._running:
            self._wait_no_longer()
            await asyncio.wait(self._running.values())
        self._executor.shutdown()

    def _start(self) -> None:
        for key in [key for key in self._waiting if key not in self._running]:
            if len(self._running) == self._threads:
                return
            queries = self._waiting[key]
            if not queries[0].where and len(queries) < min(self._company, TOGETHER_MAX):
                continue
            del self._waiting[key]
            if len(queries) > TOGETHER_MAX:
                self._waiting[key] = queries[TOGETHER_MAX:]
            self._running[key] = asyncio.create_task(self._answer(queries[:TOGETHER_MAX]))
            self._running[key].add_done_callback(partial(self._finished, key))

    def _finished(self, key: tuple[int, str], _: asyncio.Task[None]) -> None:
        del self._running[key]
        self._start()

    async def _answer(self, queries: list[_Query]) -> None:
        queries = [query for query in queries if not query.answer.done()]
        started = time.monotonic()
        if not queries or not await _answer_all(self._executor, self._search, queries):
            return
        if self._on_batch is not None:
            self._on_batch(len(queries))
        if not queries[0].where:
            waiting = sum(len(others) for others in self._waiting.values() if not others[0].where)
            self._company = len(queries) + waiting
            if self._wait is not None:
                self._wait.cancel()
            wait_s = min(2 * (time.monotonic() - started), _LONGEST_WAIT_S)
            self._wait = asyncio.get_running_loop().call_later(wait_s, self._wait_no_longer)

    def _wait_no_longer(self) -> None:
        self._company = 0
        self._start()

    def _search(self, queries: list[_Query]) -> list[list[Hit]]:
        found = queries[0].index.search_many(
            np.stack([query.vector for query in queries]),
            max(query.k for query in queries),
            where=queries[0].where,
            model_fingerprint=self._model_fingerprint,
            threads=self._threads,
        )
        return [hits[: query.k] for query, hits in zip(queries, found, strict=True)]


async def _answer_all(thread: ThreadPoolExecutor, work: Callable[[Any], Iterable[Any]], asked: Sequence[Any]) -> bool:
    """Let a thread answer all that were asked, and hand each its own, or what went wrong; whether all went well."""
    try:
        answers = await asyncio.get_running_loop().run_in_executor(thread, work, asked)
        pairs = list(zip(asked, answers, strict=True))
    except Exception as error:
        for entry in asked:
            if not entry.answer.done():
                entry.answer.set_exception(error)
        return False
    for entry, answer in pairs:
        if not entry.answer.done():
            entry.answer.set_result(answer)
    return True
