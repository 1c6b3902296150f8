"""Live recall: a sample of the searches is done again exactly, and what the index missed is counted."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np
from jaxtyping import Float

from univert.search.index import Index
from univert.search.records import Hit, Where
from univert.serving.metrics import Metrics
from univert.serving.request_logs import log

K: Final = 10
_REST: Final = 20
"""After a comparison the monitor rests this many times as long as it took: exact search over a million vectors takes
a core for a second, and may have a twentieth of one."""
_SAME_DISTANCE: Final = 1e-5
"""Distances computed in two ways differ by this much; images as far as the last exact one are as good as it."""


class RecallMonitor:
    """Compares a sample of live searches with exact search, one at a time, beside the requests.

    Args:
        share: of the searches, 0 to 1.
        model_fingerprint: of the model whose vectors these are.
        metrics: where the shares found are counted.
    """

    def __init__(self, share: float, model_fingerprint: str, metrics: Metrics) -> None:
        self._share = share
        self._model_fingerprint = model_fingerprint
        self._metrics = metrics
        self._random = random.Random()  # noqa: S311 - a sample, no secret
        self._task: asyncio.Task[None] | None = None
        self._rest_until = 0.0
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="univert-recall")

    def offer(
        self, index: Index, vector: Float[np.ndarray, " D"], where: Where | None, hits: Sequence[Hit], k: int
    ) -> None:
        """A search was answered; it may be drawn. Returns at once.

        Args:
            index: the version that answered.
            vector: the query.
            where: its filters.
            hits: the answer, nearest first.
            k: how many were asked for; an answer that is too short misses what it lacks.
        """
        if self._random.random() >= self._share:
            return
        running = self._task is not None and not self._task.done()
        if running or time.monotonic() < self._rest_until:
            self._metrics.recall_skipped.inc()
            return
        self._task = asyncio.create_task(self._compare(index, vector, where, list(hits), k))

    async def close(self) -> None:
        """Finish the comparison that runs."""
        if self._task is not None:
            await self._task
        self._executor.shutdown()

    async def _compare(self, index: Index, vector: np.ndarray, where: Where | None, hits: list[Hit], k: int) -> None:
        def exactly() -> list[Hit]:
            return index.search(vector, min(K, k), where=where, model_fingerprint=self._model_fingerprint, exact=True)

        started = time.monotonic()
        try:
            exact = await asyncio.get_running_loop().run_in_executor(self._executor, exactly)
        except Exception:
            # The monitor watches the service; its own failure must not become the service's.
            log(logging.ERROR, "recall monitor failed", failed=True)
            return
        finally:
            self._rest_until = time.monotonic() + _REST * (time.monotonic() - started)
        self._metrics.recall.observe(recall(hits, exact))


def recall(hits: Sequence[Hit], exact: Sequence[Hit]) -> float:
    """The share of the exact nearest that an answer found; images equally far count as one another.

    Args:
        hits: an answer, nearest first.
        exact: the exact answer.
    """
    if not exact:
        return 1.0
    ids = {hit.id for hit in exact}
    limit = exact[-1].distance + _SAME_DISTANCE
    found = sum(hit.id in ids or hit.distance <= limit for hit in hits[: len(exact)])
    return found / len(exact)
