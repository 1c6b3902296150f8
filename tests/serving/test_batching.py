import asyncio
import functools
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from univert.core.errors import BadInputError
from univert.models.embedder import Embedder
from univert.search.index import Index
from univert.serving.batching import TOGETHER_MAX, Batcher, QueueFullError, SearchBatches


class Network:
    """Doubles what it is given; can be held up, and remembers its batches."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.batches: list[list[int]] = []
        self.go = threading.Event()
        self.go.set()
        self.entered = threading.Event()

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        self.entered.set()
        assert self.go.wait(10)
        time.sleep(self.seconds)
        self.batches.append(batch[:, 0].tolist())
        return 2 * batch


def item(number: int) -> np.ndarray:
    return np.array([number, 0])


def in_a_loop(body: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    return functools.wraps(body)(lambda: asyncio.run(asyncio.wait_for(body(), 20)))


async def held_up(network: Network, batcher: Batcher) -> Awaitable[np.ndarray]:
    """A first request that occupies the network until `network.go` is set."""
    network.go.clear()
    first = asyncio.create_task(batcher.submit(item(0)))
    while not network.entered.is_set():
        await asyncio.sleep(0.001)
    return first


@in_a_loop
async def test_requests_that_come_together_run_together_and_get_their_own_rows() -> None:
    network = Network()
    batcher = Batcher(network, max_batch=4, max_wait_ms=0)
    first = await held_up(network, batcher)
    rest = [asyncio.create_task(batcher.submit(item(i))) for i in range(1, 7)]
    await asyncio.sleep(0)
    network.go.set()
    answers = await asyncio.gather(first, *rest)
    assert [answer[0] for answer in answers] == [0, 2, 4, 6, 8, 10, 12]
    assert network.batches == [[0], [1, 2, 3, 4], [5, 6]]
    await batcher.close()


@in_a_loop
async def test_a_lone_client_never_waits_for_company() -> None:
    batcher = Batcher(Network(), max_wait_ms=5000)
    started = time.monotonic()
    for i in range(5):
        await batcher.submit(item(i))
    assert time.monotonic() - started < 2.5
    await batcher.close()


@in_a_loop
async def test_after_a_batch_of_three_it_waits_for_three() -> None:
    network = Network()
    batcher = Batcher(network, max_wait_ms=3000)
    first = await held_up(network, batcher)
    rest = [asyncio.create_task(batcher.submit(item(i))) for i in (1, 2, 3)]
    await asyncio.sleep(0)
    network.go.set()
    await asyncio.gather(first, *rest)

    async def later(number: int) -> None:
        await asyncio.sleep(0.02 * number)
        await batcher.submit(item(number))

    started = time.monotonic()
    await asyncio.gather(*(later(i) for i in (4, 5, 6)))
    assert network.batches[-1] == [4, 5, 6]
    assert time.monotonic() - started < 1.5  # not the whole of the longest wait
    await batcher.close()


@in_a_loop
async def test_a_full_queue_refuses_and_says_when_to_come_back() -> None:
    network = Network()
    batcher = Batcher(network, queue_size=2)
    first = await held_up(network, batcher)
    waiting = [asyncio.create_task(batcher.submit(item(i))) for i in (1, 2)]
    await asyncio.sleep(0)
    assert batcher.waiting == 2
    with pytest.raises(QueueFullError, match="2 requests wait"):
        await batcher.submit(item(3))
    waiting[0].cancel()  # who hangs up makes room
    await asyncio.sleep(0)
    fourth = asyncio.create_task(batcher.submit(item(4)))
    await asyncio.sleep(0)
    network.go.set()
    await asyncio.gather(first, waiting[1], fourth)
    assert sum(network.batches, []) == [0, 2, 4]  # noqa: RUF017
    await batcher.close()


@in_a_loop
async def test_a_failure_reaches_its_batch_alone() -> None:
    def run(batch: np.ndarray) -> np.ndarray:
        if batch[0, 0] == 1:
            raise TimeoutError("of the network itself")
        return batch[:-1] if batch[0, 0] == 2 else batch

    batcher = Batcher(run)
    with pytest.raises(TimeoutError, match="of the network itself"):
        await batcher.submit(item(1))
    with pytest.raises(ValueError, match="shorter"):
        await batcher.submit(item(2))
    assert (await batcher.submit(item(3)))[0] == 3
    await batcher.close()


@in_a_loop
async def test_closing_finishes_what_was_taken_and_takes_no_more() -> None:
    network = Network()
    batcher = Batcher(network, max_batch=2)
    first = await held_up(network, batcher)
    waiting = [asyncio.create_task(batcher.submit(item(i))) for i in range(1, 6)]
    await asyncio.sleep(0)
    closing = asyncio.create_task(batcher.close())
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="closed"):
        await batcher.submit(item(9))
    network.go.set()
    await closing
    answers = await asyncio.gather(first, *waiting)
    assert [answer[0] for answer in answers] == [0, 2, 4, 6, 8, 10]


@in_a_loop
async def test_everybody_gets_their_own_answer_whatever_the_timing() -> None:
    rng = np.random.default_rng(0)
    network = Network(seconds=0.0005)
    batcher = Batcher(network, max_batch=8, max_wait_ms=1, queue_size=1000)
    delays = rng.uniform(0, 0.3, 400)
    gives_up = rng.random(400) < 0.2

    async def client(number: int) -> None:
        await asyncio.sleep(delays[number])
        try:
            async with asyncio.timeout(0.002 if gives_up[number] else None):
                assert (await batcher.submit(item(number)))[0] == 2 * number
        except TimeoutError:
            assert gives_up[number]

    await asyncio.gather(*(client(i) for i in range(400)))
    computed = [number for batch in network.batches for number in batch]
    assert len(computed) == len(set(computed))
    assert max(map(len, network.batches)) <= 8
    assert batcher.waiting == 0
    await batcher.close()


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


def slowly(index: Index, seconds: float, filtered: list[bool] | None = None) -> Index:
    """An index that takes its time without a filter, and remembers which searches had one."""

    def search_many(*asked: Any, where: Any, **options: Any) -> Any:
        time.sleep(0 if where else seconds)
        if filtered is not None:
            filtered.append(bool(where))
        return index.search_many(*asked, where=where, **options)

    return cast("Index", SimpleNamespace(search_many=search_many))


def test_who_searches_again_is_searched_for_together(model: Embedder, index: Index) -> None:
    slow, sizes = slowly(index, 0.1), list[int]()

    async def client(batches: SearchBatches, number: int) -> None:
        await asyncio.sleep(0.02 * (number % 2))
        for vector in vectors(4):
            await batches.search(slow, vector, 3, None)

    async def all_clients() -> None:
        batches = SearchBatches(model.fingerprint, on_batch=sizes.append)
        await asyncio.gather(*(client(batches, number) for number in range(8)))
        await batches.close()

    asyncio.run(all_clients())
    assert max(sizes) == 8, "they came as two halves"


def coarse_loop() -> asyncio.AbstractEventLoop:
    """A loop whose timers may go off a little early, as uvloop's do."""
    loop: Any = asyncio.SelectorEventLoop()
    loop._clock_resolution = 0.05
    return cast("asyncio.AbstractEventLoop", loop)


@pytest.mark.parametrize("close", [False, True], ids=["none comes", "closing"])
def test_who_waits_for_company_is_answered_without(model: Embedder, index: Index, close: bool) -> None:
    slow, sizes = slowly(index, 0.1), list[int]()

    async def turn() -> None:
        while True:
            await asyncio.sleep(0.01)

    async def ask() -> None:
        turning = asyncio.create_task(turn())
        batches = SearchBatches(model.fingerprint, on_batch=sizes.append)
        await asyncio.gather(*(batches.search(slow, vector, 1, None) for vector in vectors(3)))
        lonely = asyncio.create_task(batches.search(slow, vectors(1)[0], 1, None))
        await asyncio.sleep(0)
        if close:
            await batches.close()
        async with asyncio.timeout(5):
            assert len(await lonely) == 1
        turning.cancel()
        await batches.close()

    with asyncio.Runner(loop_factory=coarse_loop) as runner:
        runner.run(ask())
    assert sizes == [3, 1]


def test_other_filters_are_no_company(model: Embedder, index: Index) -> None:
    filtered: list[bool] = []

    async def ask() -> None:
        batches = SearchBatches(model.fingerprint, 1)
        slow, (vector,) = slowly(index, 0.1, filtered), vectors(1)

        def search(number: int | None) -> asyncio.Task[Any]:
            where = None if number is None else {"id": str(number)}
            return asyncio.create_task(batches.search(slow, vector, 1, where))

        first = search(None)
        await asyncio.sleep(0.02)
        others = [search(number) for number in range(3)]
        await first
        lonely = search(None)
        await asyncio.gather(*others)
        await search(4)
        await lonely
        await batches.close()

    asyncio.run(ask())
    assert filtered == [False, True, True, True, False, True]


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
    assert all(len(hits) == 1 for hits in right)
