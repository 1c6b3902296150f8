"""Work done ahead in threads, in order."""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from univert.core.errors import BadInputError

T = TypeVar("T")
R = TypeVar("R")


def decoding_threads(workers: int | None) -> int:
    """How many threads to decode with: as asked, or one a core that this process may use, at most 8.

    Raises:
        BadInputError: `workers` is not positive.
    """
    if workers is None:
        return min(8, len(os.sched_getaffinity(0)))
    if workers < 1:
        raise BadInputError(f"workers must be at least 1, got {workers}; leave it out for one a core")
    return workers


def map_ahead(function: Callable[[T], R], jobs: Iterable[T], *, workers: int, ahead: int = 1) -> Generator[R]:
    """Results of `function` in the order of `jobs`, computed in threads at most `workers + ahead` jobs ahead.

    An exception in a job, or in the iterable itself, is raised where its result would have come. Closing the
    generator early stops the work that has not begun.
    """
    source = iter(jobs)
    waiting: deque[Future[R]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="univert-decode")
    try:
        for job in itertools.islice(source, workers + ahead):
            waiting.append(pool.submit(function, job))
        while waiting:
            result = waiting.popleft().result()
            for job in itertools.islice(source, 1):
                waiting.append(pool.submit(function, job))
            yield result
    finally:
        pool.shutdown(cancel_futures=True)
