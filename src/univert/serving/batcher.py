"""Requests that come together go through the network together: dynamic batching with a bound on everything."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from univert.core.errors import BadInputError, UnivertError
from univert.serving.shared_failures import own_copy

OnBatch = Callable[[int, float], None]
"""Called after each batch with its size and the seconds it took."""

_log = logging.getLogger(__name__)


class QueueFullError(UnivertError, RuntimeError):
    """More requests wait than may.

    Attributes:
        retry_after_s: when there is likely to be room, in seconds.
    """

    def __init__(self, waiting: int, retry_after_s: float) -> None:
        super().__init__(f"{waiting} requests wait already; try again in {retry_after_s:.1f} s")
        self.retry_after_s = retry_after_s


class DeadlineError(UnivertError, TimeoutError):
    """A request's time was up before its answer was there."""


class BatcherClosedError(UnivertError, RuntimeError):
    """The service is shutting down and takes no more requests."""


@dataclass(eq=False, slots=True)
class _Waiting:
    array: np.ndarray
    answer: asyncio.Future[np.ndarray]
    deadline: float | None


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
        on_batch: told about each batch, for metrics.

    Raises:
        BadInputError: a limit is out of range.

    Example:
        >>> import asyncio, numpy as np
        >>> async def main():
        ...     batcher = Batcher(lambda batch: 2 * batch, max_batch=8)
        ...     answers = await asyncio.gather(*(batcher.submit(np.array([i])) for i in range(3)))
        ...     await batcher.close()
        ...     return [int(answer[0]) for answer in answers]
        >>> asyncio.run(main())
        [0, 2, 4]
    """

    def __init__(
        self,
        run: Callable[[np.ndarray], np.ndarray],
        max_batch: int = 32,
        max_wait_ms: float = 4.0,
        queue_size: int = 256,
        *,
        on_batch: OnBatch | None = None,
    ) -> None:
        for name, value, least in (
            ("max_batch", max_batch, 1),
            ("max_wait_ms", max_wait_ms, 0),
            ("queue_size", queue_size, 1),
        ):
            if not value >= least:  # true for NaN, too
                raise BadInputError(f"{name} must be at least {least}, got {value}")
        self._run = run
        self._max_batch = max_batch
        self._max_wait_s = max_wait_ms / 1000
        self._queue_size = queue_size
        self._on_batch = on_batch
        self._queue: deque[_Waiting] = deque()
        self._arrived = asyncio.Event()
        self._closing = False
        self._shape: tuple[int, ...] | None = None
        self._recent: deque[int] = deque([1], maxlen=4)
        self._seconds_each = 0.01
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="univert-batch")
        self._task: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """How many requests wait for their batch."""
        return len(self._queue)

    async def submit(self, array: np.ndarray, deadline: float | None = None) -> Float[np.ndarray, " D"]:
        """One request: its row of the batch's answer.

        Args:
            array: what `run` takes, without the first axis; every request has the same shape.
            deadline: the moment of `time.monotonic()` by which the answer must be there; None waits for ever.

        Returns:
            its row of what `run` gives.

        Raises:
            QueueFullError: too many wait; nothing was queued.
            DeadlineError: the deadline passed. What had not begun is never computed.
            BatcherClosedError: `close` was called before.
            BadInputError: another shape than the first request's.
        """
        self._check(array)
        if deadline is not None and deadline <= time.monotonic():
            raise DeadlineError("the request's time was up before it could be queued")
        entry = _Waiting(array, asyncio.get_running_loop().create_future(), deadline)
        self._queue.append(entry)
        self._arrived.set()
        if self._task is None:
            self._task = asyncio.create_task(self._work(), name="univert-batcher")
        try:
            if deadline is None:
                return await entry.answer
            async with asyncio.timeout(deadline - time.monotonic()):
                return await entry.answer
        except TimeoutError:
            if entry.answer.done() and not entry.answer.cancelled():
                return entry.answer.result()  # it came at the last moment, or what was run timed out itself
            raise DeadlineError("the request's time was up before its answer was there") from None

    async def close(self) -> None:
        """Take no more requests, finish those that were taken, and stop the thread. May be called again."""
        self._closing = True
        self._arrived.set()
        if self._task is not None:
            await self._task
        self._thread.shutdown()

    def _check(self, array: np.ndarray) -> None:
        if self._closing:
            raise BatcherClosedError("the service is shutting down; send the request to another one")
        if self._shape is None:
            self._shape = array.shape
        elif array.shape != self._shape:
            raise BadInputError(f"array must have shape {self._shape} as the others do, got {array.shape}")
        if len(self._queue) >= self._queue_size:
            # Who has given up must not keep others out.
            self._queue = deque(entry for entry in self._queue if not entry.answer.done())
        if len(self._queue) >= self._queue_size:
            raise QueueFullError(len(self._queue), max(0.1, self._seconds_each * len(self._queue)))

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
        now = time.monotonic()
        while self._queue and len(batch) < self._max_batch:
            entry = self._queue.popleft()
            if entry.answer.done() or (entry.deadline is not None and entry.deadline <= now):
                continue  # given up: its caller is gone or gets a DeadlineError of its own
            batch.append(entry)
        return batch

    async def _answer(self, batch: list[_Waiting]) -> None:
        started = time.monotonic()
        try:
            rows = await asyncio.get_running_loop().run_in_executor(
                self._thread, self._rows, [entry.array for entry in batch]
            )
        except Exception as error:
            for entry in batch:
                if not entry.answer.done():
                    entry.answer.set_exception(own_copy(error))
            return
        seconds = time.monotonic() - started
        self._recent.append(len(batch))
        self._seconds_each += 0.1 * (seconds / len(batch) - self._seconds_each)
        for entry, row in zip(batch, rows, strict=True):
            if not entry.answer.done():
                entry.answer.set_result(row)
        if self._on_batch is not None:
            try:
                self._on_batch(len(batch), seconds)
            except Exception:
                _log.exception("the hook on_batch failed")  # figures are no reason to stop answering

    def _rows(self, arrays: list[np.ndarray]) -> np.ndarray:
        rows = self._run(np.stack(arrays))
        if len(rows) != len(arrays):
            raise RuntimeError(f"run gave {len(rows)} rows for {len(arrays)} arrays")
        return rows
