"""The rows of an index where they lie: the storage engine answers, exactly or through its vector index."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float, UInt64

from univert.search.query import FILTER_COLUMNS, Hit, Where, sql_condition
from univert.search.vector_index import VECTOR_INDEX, Effort, as_matrix, squared_distances, vector_index_state

_MAX_INDEXED_K: Final = 500
"""Beyond this many neighbours the index looks into so much that comparing every vector costs no more."""

_FILTERED_EXACT_SHARE: Final = 0.001
"""Where filters leave a smaller share of the rows, these are compared one by one. That takes 20 us a row, read from
where it lies; the index compares all rows, with or without a filter, in 0.03 us each."""

_MIN_CANDIDATES: Final = 50
_CANDIDATES_PER_NEIGHBOUR: Final = 5
"""Candidates that the index is asked for: five times k, and never fewer than fifty."""
_IDS_AT_ONCE: Final = 1_000
"""As many names as a condition can hold."""
_ROWS_AT_ONCE: Final = 250_000
_QUERIES_AT_ONCE: Final = 256
_READ_AHEAD_BYTES: Final = 1 << 25
"""The engine would read gigabytes ahead of the comparison, which is no quicker."""
_WIDER: Final = 8
"""Where the cut falls among equal distances, so many times as many rows are read next."""


class DiskRows:
    """The rows of one version of an index, read from the table whenever they are asked for."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset
        self._vector_index = vector_index_state(dataset)
        self._centroids: Float[np.ndarray, "P D"] | None = None

    @property
    def approximate(self) -> bool:
        """Whether there is a vector index."""
        return self._vector_index is not None

    def __len__(self) -> int:
        return int(self._dataset.count_rows())

    def search(
        self, queries: Float[np.ndarray, "Q D"], k: int, where: Where, *, exact: bool = False
    ) -> list[list[Hit]]:
        """The hits of each query; see `univert.search.index.Index.search`."""
        condition = sql_condition(where)
        matching = int(self._dataset.count_rows(condition))
        k = min(k, matching)
        if not k:
            return [[] for _ in queries]
        few = condition is not None and matching <= _FILTERED_EXACT_SHARE * len(self)
        exact = exact or self._vector_index is None or few or k > _MAX_INDEXED_K
        answers: list[list[Hit]] = []
        for start in range(0, len(queries), _QUERIES_AT_ONCE):
            some = queries[start : start + _QUERIES_AT_ONCE]
            if exact:
                answers += nearest_of_all(self._dataset, some, k, condition, matching)
            else:
                answers += self._by_index(some, k, condition, matching)
        return answers

    def named(self, ids: Sequence[str], columns: Sequence[str]) -> pa.Table:
        """Some columns of those of the images that are there, in no order."""
        return rows_by_id(self._dataset, ids, columns)

    def column(self, name: str) -> pa.ChunkedArray:
        """A column of all rows."""
        return self._dataset.to_table(columns=[name])[name]

    def warm(self) -> None:
        """Read what the first queries need, so that they need not wait for it."""
        if self._vector_index is not None:
            for index in self._dataset.describe_indices():
                self._dataset.prewarm_index(index.name)

    def _by_index(
        self, queries: Float[np.ndarray, "Q D"], k: int, condition: str | None, matching: int
    ) -> list[list[Hit]]:
        assert self._vector_index is not None
        if self._centroids is None:
            self._centroids = as_matrix(self._dataset.get_ivf_model(VECTOR_INDEX).centroids)
        effort = self._vector_index.effort
        answers = nearest_by_index(self._dataset, queries, k, condition, effort, self._centroids)
        # The partitions that were looked into may hold fewer than k.
        short = [position for position, hits in enumerate(answers) if len(hits) < k]
        if short:
            exact = nearest_of_all(self._dataset, queries[short], k, condition, matching)
            for position, hits in zip(short, exact, strict=True):
                answers[position] = hits
        return answers


def nearest_of_all(
    dataset: Any, queries: Float[np.ndarray, "Q D"], limit: int, condition: str | None, matching: int
) -> list[list[Hit]]:
    """The hits of each query by comparing every vector, nearest first, equal distances in order of id, also at the cut.

    Args:
        dataset: the table of images.
        queries: unit vectors.
        limit: hits a query.
        condition: which rows may be answered; None for all.
        matching: how many rows may be answered.
    """
    answers: list[list[Hit]] = [[] for _ in queries]
    asked = np.arange(len(queries))
    # One more than asked for shows whether the cut falls among equal distances, of which the engine picks any. Where it
    # does, more is read for all such queries together; only what is answered becomes objects.
    wide = limit + 1
    while len(asked):
        wide = min(wide, matching)
        at_once = max(1, _ROWS_AT_ONCE // wide)
        tied: list[int] = []
        for start in range(0, len(asked), at_once):
            some = asked[start : start + at_once]
            for number, found in zip(some, _compared(dataset, queries[some], wide, condition), strict=True):
                answers[number] = _first(found, limit)
                if wide < matching and answers[number][-1].distance == pc.max(found["_distance"]).as_py():
                    tied.append(number)
        asked = np.array(tied, dtype=np.int64)
        wide *= _WIDER
    return answers


def nearest_by_index(
    dataset: Any,
    queries: Float[np.ndarray, "Q D"],
    limit: int,
    condition: str | None,
    effort: Effort | None,
    centroids: Float[np.ndarray, "P D"],
) -> list[list[Hit]]:
    """The hits of each query through the vector index, nearest first, equal distances in order of id.

    The index compares 8-bit vectors; its candidates are put in order by their full vectors. Only those are read that
    may be among the nearest, given how far the index is known to be off, and for all queries together: reading them
    is most of the work.

    Args:
        dataset: the table of images.
        queries: unit vectors.
        limit: hits a query; there may be fewer where the partitions that were looked into hold fewer.
        condition: which rows may be answered; None for all.
        effort: what a search takes; None while that is not known.
        centroids: of the partitions.
    """
    wanted = max(_MIN_CANDIDATES, _CANDIDATES_PER_NEIGHBOUR * limit)
    # What a filter leaves may lie far from the query, in partitions that it would look into last: all are looked into.
    question = _question(queries, wanted, use_index=True) | {"nprobes": len(centroids)}
    if condition is None and effort is not None:
        nearest = squared_distances(queries, centroids).min(axis=1)
        question["nprobes"] = min(len(centroids), int(effort.partitions(nearest, limit).max()))
    found = dataset.scanner(
        columns=["_distance"], with_row_id=True, nearest=question, filter=condition, prefilter=True
    ).to_table()
    if not len(found):
        return [[] for _ in queries]
    margin = math.inf if effort is None else effort.margin
    candidates = [
        _within(mine["_rowid"].to_numpy(), mine["_distance"].to_numpy(), limit, margin)
        for mine in _by_query(found, len(queries))
    ]
    rows = _Rows(dataset, np.unique(np.concatenate(candidates)))
    return [rows.nearest(query, some, limit) for query, some in zip(queries, candidates, strict=True)]


def rows_by_id(dataset: Any, ids: Sequence[str], columns: Sequence[str]) -> pa.Table:
    """Some columns of those of the images that are there, in no order."""
    parts = [dataset.schema.empty_table().select(list(columns))]
    for start in range(0, len(ids), _IDS_AT_ONCE):
        condition = sql_condition({"id": list(ids[start : start + _IDS_AT_ONCE])})
        parts.append(dataset.to_table(columns=list(columns), filter=condition))
    return pa.concat_tables(parts)


def vectors_by_id(dataset: Any, ids: Sequence[str]) -> Float[np.ndarray, "N D"]:
    """The vectors of images that are all there, in the order asked for."""
    rows = rows_by_id(dataset, ids, ["id", "vector"])
    places = {name: place for place, name in enumerate(rows["id"].to_pylist())}
    return as_matrix(rows["vector"].combine_chunks())[[places[name] for name in ids]]


def _compared(dataset: Any, queries: Float[np.ndarray, "Q D"], wide: int, condition: str | None) -> Iterator[pa.Table]:
    """The `wide` rows nearest to each query, in no order, of equally distant ones any."""
    found = dataset.scanner(
        columns=[*FILTER_COLUMNS, "_distance"],
        nearest=_question(queries, wide, use_index=False),
        filter=condition,
        prefilter=True,
        io_buffer_size=_READ_AHEAD_BYTES,
    ).to_table()
    at_least_0 = pc.max_element_wise(found["_distance"], pa.scalar(0.0, pa.float32()))
    place = found.column_names.index("_distance")
    return _by_query(found.set_column(place, "_distance", at_least_0), len(queries))


def _first(rows: pa.Table, limit: int) -> list[Hit]:
    """The hits among rows: the nearest, of equally distant ones those whose ids come first."""
    order = [("_distance", "ascending"), ("id", "ascending")]
    nearest = rows.select([*FILTER_COLUMNS, "_distance"]).take(pc.select_k_unstable(rows, k=limit, sort_keys=order))
    return [Hit(distance=row.pop("_distance"), **row) for row in nearest.to_pylist()]


def _question(queries: Float[np.ndarray, "Q D"], k: int, *, use_index: bool) -> dict[str, Any]:
    return {"column": "vector", "q": queries[0] if len(queries) == 1 else queries, "k": k, "use_index": use_index}


def _by_query(found: pa.Table, queries: int) -> Iterator[pa.Table]:
    """The rows that were found for each query."""
    if "query_index" not in found.column_names:  # where one was asked
        yield found
        return
    for number in range(queries):
        yield found.filter(pc.equal(found["query_index"], number))


def _within(
    places: UInt64[np.ndarray, " C"], distances: Float[np.ndarray, " C"], limit: int, margin: float
) -> UInt64[np.ndarray, " _"]:
    """Those candidates that may be among the `limit` nearest."""
    if len(places) <= limit:
        return places
    near: np.ndarray = places[distances <= np.partition(distances, limit - 1)[limit - 1] + margin]
    return near


class _Rows:
    """Rows of the table, read at once, and put in order for one query after the other."""

    def __init__(self, dataset: Any, places: UInt64[np.ndarray, " N"]) -> None:
        condition = f"_rowid IN ({', '.join(map(str, places.tolist()))})"
        table = dataset.to_table(columns=[*FILTER_COLUMNS, "vector"], filter=condition, with_row_id=True)
        there = table["_rowid"].to_numpy()
        self._order = np.argsort(there)
        self._places = there[self._order]
        self._vectors = as_matrix(table["vector"].combine_chunks())
        self._columns = [table[name].to_pylist() for name in FILTER_COLUMNS]
        self._ids = self._columns[0]

    def nearest(self, query: Float[np.ndarray, " D"], places: np.ndarray, limit: int) -> list[Hit]:
        """The hits among the rows at some places."""
        positions = self._order[np.searchsorted(self._places, places)]
        distances = np.square(self._vectors[positions] - query).sum(axis=1)
        ranked = sorted(
            zip(distances.tolist(), positions.tolist(), strict=True), key=lambda one: (one[0], self._ids[one[1]])
        )
        return [self._hit(*one) for one in ranked[:limit]]

    def _hit(self, distance: float, position: int) -> Hit:
        values = [column[position] for column in self._columns]
        return Hit(distance=distance, **dict(zip(FILTER_COLUMNS, values, strict=True)))
