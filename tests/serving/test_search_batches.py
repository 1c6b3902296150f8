from __future__ import annotations

import asyncio
import threading
from typing import Any

import numpy as np
import pytest

from univert.core.errors import BadInputError
from univert.models.embedder import Embedder
from univert.search.index import Index
from univert.serving.metrics import Metrics
from univert.serving.recall_monitor import RecallMonitor, recall
from univert.serving.search_batches import TOGETHER_MAX, SearchBatches


def vectors(count: int) -> np.ndarray:
    drawn = np.random.default_rng(0).standard_normal((count, 16)).astype(np.float32)
    unit: np.ndarray = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    return unit


def test_together_or_alone_the_answers_are_the_same(model: Embedder, index: Index) -> None:
    asked = [
        (vector, 1 + number % 7, [None, {"vertical": "shoes"}, {"brand": "Maker & Sons"}][number % 3])
        for number, vector in enumerate(vectors(90))
    ]
    sizes: list[int] = []

    async def all_at_once() -> list[Any]:
        batches = SearchBatches(model.fingerprint, 1, on_batch=sizes.append)
        answers = await asyncio.gather(*(batches.search(index, *query) for query in asked))
        await batches.close()
        return list(answers)

    for (vector, k, where), hits in zip(asked, asyncio.run(all_at_once()), strict=True):
        alone = index.search(vector, k, where=where, model_fingerprint=model.fingerprint)
        assert [hit.id for hit in hits] == [hit.id for hit in alone]
    assert sum(sizes) == 90
    assert max(sizes) <= TOGETHER_MAX
    assert len(sizes) <= 5, "one at once, then a group for each filter"


def test_an_error_reaches_only_those_who_made_it(model: Embedder, index: Index) -> None:
    async def ask() -> list[Any]:
        batches = SearchBatches(model.fingerprint, 1)
        wrong = [batches.search(index, vectors(1)[0], 1, {"vertical": "nowhere"}) for _ in range(2)]
        right = [batches.search(index, vectors(1)[0], 1, None) for _ in range(2)]
        answers = await asyncio.gather(*wrong, *right, return_exceptions=True)
        await batches.close()
        return list(answers)

    first, second, *right = asyncio.run(ask())
    assert isinstance(first, BadInputError)
    assert isinstance(second, BadInputError)
    assert first is not second
    assert str(first) == str(second)
    assert all(len(hits) == 1 for hits in right)


def test_who_gives_up_does_not_stop_the_others(model: Embedder, index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    async def ask() -> Any:
        batches, go_on = SearchBatches(model.fingerprint, 1), threading.Event()
        search = batches._search
        monkeypatch.setattr(batches, "_search", lambda *given: (go_on.wait(5), search(*given))[1])
        waiting = [asyncio.create_task(batches.search(index, vectors(1)[0], 1, None)) for _ in range(4)]
        await asyncio.sleep(0.05)
        waiting[0].cancel()
        waiting[2].cancel()
        go_on.set()
        answers = await asyncio.gather(*waiting, return_exceptions=True)
        await batches.close()
        return answers

    answers = asyncio.run(ask())
    assert [isinstance(answer, asyncio.CancelledError) for answer in answers] == [True, False, True, False]


def test_the_monitor_counts_what_the_index_missed(model: Embedder, index: Index) -> None:
    metrics = Metrics()
    vector = vectors(1)[0]
    exact = index.search(vector, 10, model_fingerprint=model.fingerprint, exact=True)
    assert recall(exact, exact) == 1
    far = index.search(vector, 24, model_fingerprint=model.fingerprint, exact=True)[14:]
    assert recall([*exact[:5], *far[:5]], exact) == 0.5
    assert recall([], []) == 1

    async def watch() -> None:
        monitor = RecallMonitor(1.0, model.fingerprint, metrics)
        monitor.offer(index, vector, None, [*exact[:5], *far[:5]], 10)
        monitor.offer(index, vector, None, exact, 10)
        await monitor.close()

    asyncio.run(watch())
    text = metrics.render().decode()
    assert "univert_recall_sum 0.5" in text
    assert "univert_recall_skipped_total 1.0" in text


@pytest.mark.parametrize(("found", "share"), [(3, "0.3"), (0, "0.0")])
def test_the_monitor_sees_what_an_answer_lacks(model: Embedder, index: Index, found: int, share: str) -> None:
    metrics = Metrics()
    vector = vectors(1)[0]
    exact = index.search(vector, 10, model_fingerprint=model.fingerprint, exact=True)

    async def watch() -> None:
        monitor = RecallMonitor(1.0, model.fingerprint, metrics)
        monitor.offer(index, vector, None, exact[:found], 10)
        await monitor.close()

    asyncio.run(watch())
    assert f"univert_recall_sum {share}" in metrics.render().decode()
