"""Index queries that come together go to the index together: a batch costs little more than one query."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Float

from univert.search.index import Index
from univert.search.records import Hit, Where
from univert.serving.shared_failures import own_copy

TOGETHER_MAX: Final = 32

_Key = tuple[int, str]


@dataclass(eq=False, slots=True)
class _Query:
    vector: np.ndarray
    k: int
    answer: asyncio.Future[list[Hit]]


@dataclass(eq=False, slots=True)
class _Group:
    key: _Key
    index: Index
    where: Where | None
    queries: list[_Query]


class SearchBatches:
    """Groups concurrent queries by version of the index and filter, and runs each group as one.

    Nothing waits for company: a query goes at once while a thread is free, and what arrives while all are busy
    forms groups. `k` may differ within a group: the largest is asked for, and each query gets its share.

    Make it, and use it, in one event loop.

    Args:
        model_fingerprint: of the model whose vectors these are.
        threads: groups that run side by side.
        on_batch: told the size of each group.
    """

    def __init__(
        self, model_fingerprint: str, threads: int = 2, *, on_batch: Callable[[int], None] | None = None
    ) -> None:
        self._model_fingerprint = model_fingerprint
        self._threads = threads
        self._on_batch = on_batch
        self._waiting: deque[_Group] = deque()
        self._open: dict[_Key, _Group] = {}
        self._running: set[asyncio.Task[None]] = set()
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="univert-search")

    async def search(self, index: Index, vector: Float[np.ndarray, " D"], k: int, where: Where | None) -> list[Hit]:
        """The `k` images of one version of the index nearest to a vector.

        Raises:
            BadInputError: see `univert.search.index.Index.search`.
        """
        query = _Query(vector, k, asyncio.get_running_loop().create_future())
        key = (id(index), _canonical(where))
        group = self._open.get(key)
        if group is None or len(group.queries) >= TOGETHER_MAX:
            group = self._open[key] = _Group(key, index, where, [])
            self._waiting.append(group)
        group.queries.append(query)
        # Those that left the network together arrive in one turn of the loop: the next turn takes them together.
        asyncio.get_running_loop().call_soon(self._start)
        return await query.answer

    async def close(self) -> None:
        """Finish what was asked, and stop the threads."""
        self._start()
        while self._running:
            await asyncio.wait(self._running)
        self._executor.shutdown()

    def _start(self) -> None:
        while self._waiting and len(self._running) < self._threads:
            group = self._waiting.popleft()
            if self._open.get(group.key) is group:
                del self._open[group.key]
            task = asyncio.create_task(self._answer(group))
            self._running.add(task)
            task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._start()

    async def _answer(self, group: _Group) -> None:
        queries = [query for query in group.queries if not query.answer.done()]
        if not queries:
            return
        try:
            answers = await asyncio.get_running_loop().run_in_executor(self._executor, self._search, group, queries)
        except Exception as error:
            for query in queries:
                if not query.answer.done():
                    query.answer.set_exception(own_copy(error))
            return
        for query, hits in zip(queries, answers, strict=True):
            if not query.answer.done():
                query.answer.set_result(hits[: query.k])
        if self._on_batch is not None:
            self._on_batch(len(queries))

    def _search(self, group: _Group, queries: list[_Query]) -> list[list[Hit]]:
        return group.index.search_many(
            np.stack([query.vector for query in queries]),
            max(query.k for query in queries),
            where=group.where,
            model_fingerprint=self._model_fingerprint,
        )


def _canonical(where: Where | None) -> str:
    return repr(sorted((column, value) for column, value in where.items())) if where else ""
