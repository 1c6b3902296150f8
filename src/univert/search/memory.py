"""The rows of an index in memory: vectors in 16 bits a value, in the order of their partitions, and the columns.

A search among many rows compares those of the partitions whose centroids are nearest, for all queries of a batch
together. Filters are applied before: partitions without any row that may be answered are passed over.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Float, Float32, Int, Int16

from univert.core.allocator import return_freed_memory
from univert.search.query import FILTER_COLUMNS, Hit
from univert.search.vector_index import EXACT_ROWS, as_matrix, partitions_of, search_effort, squared_distances

Values = Mapping[str, Sequence[str | None]]
"""Filters as `univert.search.query.check_where` gives them."""

_UNIT: Final = 32_768
"""What a value of 1 is stored as: squared distances are off by some 1e-5."""
_BLOCK_ROWS: Final = 1_024
_LOOKS_APART: Final = 64
"""As many blocks of rows are worth a thread of their own."""
_READ_AHEAD_BYTES: Final = 1 << 25
"""By itself the engine reads hundreds of megabytes ahead."""
_ROUNDING: Final = 1e-6
"""The scores of equal vectors differ by less."""
_MANY_ALIKE: Final = 1_000
"""Of more rows that were found for a query, the nearest are picked before their columns are read."""


class MemoryRows:
    """The rows of one version of an index, read at once; nothing is read later.

    Args:
        dataset: the table of images, at that version.
    """

    def __init__(self, dataset: Any) -> None:
        self._effort = search_effort(dataset)
        self._centroids, self._starts, order = partitions_of(dataset)
        self._all = np.arange(len(order))

        def column(name: str) -> pa.Array:
            return dataset.to_table(columns=[name], scan_in_order=True)[name].combine_chunks().take(order)

        self._ids, self._boxes = column("id"), column("box")
        # of each column the values, and for each row the place of its own among them, -1 for none
        self._values: dict[str, pa.Array] = {}
        self._codes: dict[str, Int[np.ndarray, " N"]] = {}
        for name in FILTER_COLUMNS[1:]:
            encoded = column(name).dictionary_encode()
            self._values[name] = encoded.dictionary
            self._codes[name] = encoded.indices.fill_null(-1).to_numpy()
        self._vectors = _read(dataset, order)
        blocks = (self._vectors[start : start + _BLOCK_ROWS] for start in range(0, len(order), _BLOCK_ROWS))
        self._half_squares = np.concatenate([np.square(block / np.float32(_UNIT)).sum(axis=1) / 2 for block in blocks])
        pa.default_memory_pool().release_unused()
        return_freed_memory()

    def __len__(self) -> int:
        return len(self._vectors)

    def search(
        self, queries: Float[np.ndarray, "Q D"], k: int, where: Values, *, exact: bool = False, threads: int = 1
    ) -> list[list[Hit]]:
        """The hits of each query; see `univert.search.index.Index.search`."""
        allowed = np.flatnonzero(self._mask(where)) if where else self._all
        k = min(k, len(allowed))
        if not k or not len(queries):
            return [[] for _ in queries]
        if exact or self._effort is None or len(allowed) <= EXACT_ROWS:
            looks = [(np.arange(len(queries)), allowed)]
        else:
            looks = self._partitions(queries, k, allowed)
        looks = [
            (asking, rows[start : start + _BLOCK_ROWS])
            for asking, rows in looks
            for start in range(0, len(rows), _BLOCK_ROWS)
        ]
        if threads == 1 or len(looks) < _LOOKS_APART:
            return self._hits(queries, self._nearest(queries, k, looks), k)
        with ThreadPoolExecutor(threads, thread_name_prefix="univert-compare") as pool:
            parts = pool.map(partial(self._nearest, queries, k), (looks[part::threads] for part in range(threads)))
            return self._hits(queries, [np.concatenate(rows) for rows in zip(*parts, strict=True)], k)

    def named(self, ids: Sequence[str], columns: Sequence[str]) -> pa.Table:
        """Some columns of those of the images that are there, in no order."""
        rows = np.flatnonzero(self._mask({"id": ids}))
        return pa.table({name: self._column(name, rows) for name in columns})

    def column(self, name: str) -> pa.Array:
        """A column of all rows."""
        return self._column(name, self._all)

    def known(self, column: str, values: Sequence[str]) -> list[str]:
        """Those of the values that a row has in a filter column other than `id`."""
        asked = pa.array(values, pa.string())
        return list(asked.filter(pc.is_in(asked, self._values[column])).to_pylist())

    def _mask(self, where: Values) -> Bool[np.ndarray, " N"]:
        """Which rows satisfy all filters."""
        mask = np.ones(len(self), bool)
        for name, values in where.items():
            wanted = pa.array([value for value in values if value is not None], pa.string())
            if name == "id":
                mask &= pc.is_in(self._ids, wanted).to_numpy(zero_copy_only=False)
            else:
                codes = pc.index_in(wanted, self._values[name]).drop_null().to_pylist()
                mask &= np.isin(self._codes[name], [*codes, -1] if None in values else codes)
        return mask

    def _column(self, name: str, rows: Int[np.ndarray, " R"]) -> pa.Array:
        if name == "vector":
            return pa.FixedSizeListArray.from_arrays(self._block(rows).ravel(), self._vectors.shape[1])
        if name in self._codes:
            codes = self._codes[name][rows]
            return self._values[name].take(pa.array(codes, mask=codes < 0))
        return (self._ids if name == "id" else self._boxes).take(pa.array(rows))

    def _block(self, rows: Int[np.ndarray, " R"]) -> Float32[np.ndarray, "R D"]:
        """The vectors of some rows."""
        block: np.ndarray = self._vectors[rows] / np.float32(_UNIT)
        return block

    def _partitions(
        self, queries: Float[np.ndarray, "Q D"], k: int, allowed: Int[np.ndarray, " R"]
    ) -> list[tuple[Int[np.ndarray, " A"], Int[np.ndarray, " _"]]]:
        """Which queries are to be compared with the rows of each partition, those nearest to a query first."""
        assert self._effort is not None
        bounds = np.searchsorted(allowed, self._starts)
        there = np.flatnonzero(np.diff(bounds))
        distances = squared_distances(queries, self._centroids[there])
        # the last of the `k` neighbours that the filters leave is so much further down among all
        enough = self._effort.partitions(distances.min(axis=1), k * len(self) / len(allowed))
        # a row for each turn, a column for each query: its partitions from the nearest on
        order = there[distances.argsort(axis=1)].T
        fewer = np.diff(bounds)[order].cumsum(axis=0) < k  # a filter may leave a row or two in each of those
        turns, asking = np.nonzero(np.arange(len(there))[:, None] < np.maximum(enough, 1 + fewer.sum(axis=0)))
        visits = order[turns, asking]
        partitions, first, counts = np.unique(visits, return_index=True, return_counts=True)
        together = np.split(asking[visits.argsort(kind="stable")], counts.cumsum()[:-1])
        return [
            (together[number], allowed[bounds[partitions[number]] : bounds[partitions[number] + 1]])
            for number in first.argsort()
        ]

    def _nearest(
        self,
        queries: Float[np.ndarray, "Q D"],
        k: int,
        looks: Sequence[tuple[Int[np.ndarray, " A"], Int[np.ndarray, " B"]]],
    ) -> list[Int[np.ndarray, " _"]]:
        """Compare blocks of rows with those of the queries that ask; the `k` nearest of each query, or a few more."""
        found = _Nearest(len(queries), k)
        scaled = (queries / _UNIT).T
        for asking, rows in looks:
            # where most of them lie side by side, all between are read as well: that is quicker than picking
            dense = rows[-1] - rows[0] < 2 * len(rows)
            read = slice(rows[0], rows[-1] + 1) if dense else rows
            scores = self._vectors[read].astype(np.float32) @ scaled[:, asking]
            scores -= self._half_squares[read, None]
            found.add(asking, rows, scores[rows - rows[0]] if dense and len(scores) > len(rows) else scores)
        return found.rows()

    def _hits(self, queries: Float[np.ndarray, "Q D"], rows: list[Int[np.ndarray, " _"]], k: int) -> list[list[Hit]]:
        """The `k` nearest of the rows that were found for each query, equally distant ones in order of id."""
        distances = [
            np.square(self._block(some) - query).sum(axis=1) for query, some in zip(queries, rows, strict=True)
        ]
        for number, (far, some) in enumerate(zip(distances, rows, strict=True)):
            if len(some) > _MANY_ALIKE:
                alike = pa.table({"distance": far, "id": self._column("id", some)})
                order = [("distance", "ascending"), ("id", "ascending")]
                nearest = pc.select_k_unstable(alike, k, order).to_numpy()
                distances[number], rows[number] = far[nearest], some[nearest]
        columns = [self._column(name, np.concatenate(rows)).to_pylist() for name in FILTER_COLUMNS]
        values = zip(*columns, strict=True)
        answers = []
        for far, some in zip(distances, rows, strict=True):
            ranked = sorted(zip(far.tolist(), itertools.islice(values, len(some)), strict=True))
            answers.append([Hit(distance=d, **dict(zip(FILTER_COLUMNS, of, strict=True))) for d, of in ranked[:k]])
        return answers


class _Nearest:
    """The rows with the `k` highest scores for each of some queries, all that equal the last of them, and some more."""

    def __init__(self, queries: int, k: int) -> None:
        self._k = k
        self._least = np.full(queries, -np.inf, np.float32)
        self._found = [(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))]
        self._count, self._count_max = 0, 0

    def add(self, asking: Int[np.ndarray, " A"], rows: Int[np.ndarray, " R"], scores: Float[np.ndarray, "R A"]) -> None:
        """Take in the scores of rows for the queries that ask."""
        high = np.flatnonzero(scores >= self._least[asking])
        if not len(high):
            return
        row, place = np.divmod(high, len(asking))
        self._found.append((asking[place], rows[row], scores[row, place]))
        self._count += len(high)
        if self._count > self._count_max:
            self._sort_out()

    def rows(self) -> list[Int[np.ndarray, " _"]]:
        """Of each query."""
        queries, rows = self._sort_out()
        return np.split(rows, np.searchsorted(queries, np.arange(1, len(self._least))))

    def _sort_out(self) -> tuple[Int[np.ndarray, " F"], Int[np.ndarray, " F"]]:
        """Drop what is not among the nearest by now; the queries, in order, and the rows of what stays."""
        queries, rows, scores = map(np.concatenate, zip(*self._found, strict=True))
        order = np.lexsort((-scores, queries))
        queries, rows, scores = queries[order], rows[order], scores[order]
        first = np.searchsorted(queries, np.arange(len(self._least) + 1))
        enough = np.flatnonzero(np.diff(first) >= self._k)
        self._least[enough] = scores[first[enough] + self._k - 1] - _ROUNDING
        stay = scores >= self._least[queries]
        self._found = [(queries[stay], rows[stay], scores[stay])]
        self._count = int(stay.sum())
        self._count_max = 2 * self._count + self._k * len(self._least)
        return queries[stay], rows[stay]


def _read(dataset: Any, order: Int[np.ndarray, " N"]) -> Int16[np.ndarray, "N D"]:
    """The vectors in 16 bits, in some order of the rows."""
    places = np.empty_like(order)
    places[order] = np.arange(len(order))
    vectors = np.empty((len(order), dataset.schema.field("vector").type.list_size), np.int16)
    done = 0
    for batch in dataset.to_batches(
        columns=["vector"],
        batch_size=_BLOCK_ROWS,
        batch_readahead=2,
        fragment_readahead=1,
        io_buffer_size=_READ_AHEAD_BYTES,
        scan_in_order=True,
    ):
        read = as_matrix(batch["vector"])
        vectors[places[done : done + len(read)]] = np.clip(np.rint(read * _UNIT), -_UNIT, _UNIT - 1)
        done += len(read)
    return vectors
