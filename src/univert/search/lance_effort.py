"""How many partitions a search looks into: as many as the index itself says are needed.

An inverted file divides the vectors into partitions around centroids, and a query is compared with the vectors of those
partitions whose centroids are nearest. How many that must be depends on the data. So some of the vectors are asked as
queries, their true neighbours are found by comparing everything once, and for each of those the place of its
partition in the query's order is looked up. How far off the distances by 8-bit vectors are is measured, too: it says
which candidates must be looked at in full.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from jaxtyping import Float, Int64

EFFORT_KEY: Final = "univert.search_effort"
RANKS: Final = (10, 100, 500)
"""The numbers of neighbours that the effort is measured for."""

_QUERIES: Final = 64
_COVERAGE: Final = 0.998
_SAFETY: Final = 1.5
"""Photos that come in lie a little outside of the catalogue's images: half as many partitions again."""

_MARGIN: Final = 4.0
"""In standard errors. Two distances that are both off by one differ by 1.4 of them, so a neighbour at the very edge is
left out once in 400 times."""
_CHUNK_ROWS: Final = 16_384


@dataclass(frozen=True, kw_only=True, slots=True)
class Effort:
    """What a search of a trained vector index takes.

    Attributes:
        rows: how many the index was trained on.
        probes: partitions to look into, by how many neighbours are asked for.
        error: standard error of a squared distance by 8-bit vectors; None where that was not measured.
    """

    rows: int
    probes: dict[int, int]
    error: float | None

    @property
    def margin(self) -> float:
        """How much further than the last neighbour a candidate may seem and yet be nearer."""
        return math.inf if self.error is None else _MARGIN * self.error

    def for_neighbours(self, k: int) -> int | None:
        """Partitions to look into for `k` neighbours; None where nothing was measured for so many."""
        return next((self.probes[rank] for rank in sorted(self.probes) if k <= rank), None)

    def to_text(self) -> str:
        """The effort as the schema of the index keeps it."""
        return json.dumps(
            {
                "rows": self.rows,
                "probes": {str(rank): count for rank, count in self.probes.items()},
                "error": self.error,
            }
        )

    @classmethod
    def from_text(cls, text: str) -> Effort:
        """Back from `to_text`."""
        stored = json.loads(text)
        probes = {int(rank): count for rank, count in stored["probes"].items()}
        return cls(rows=stored["rows"], probes=probes, error=stored.get("error"))


def measure_effort(dataset: Any, index_name: str) -> Effort:
    """The effort that the vectors of a table need.

    Args:
        dataset: the table, with an inverted-file index on the column `vector`.
        index_name: that index.
    """
    centroids = as_matrix(dataset.get_ivf_model(index_name).centroids)
    rows = dataset.count_rows()
    queries = _sample(dataset, range(rows))
    neighbours = _nearest(dataset, queries, min(max(RANKS) + 1, rows))
    # the query itself comes first and proves nothing
    places = _partition_places(queries, neighbours[:, 1:], centroids)
    probes = {rank: _needed(places[:, :rank], len(centroids)) for rank in RANKS}
    return Effort(rows=rows, probes=probes, error=measure_error(dataset, range(rows)))


def measure_error(dataset: Any, among: range) -> float:
    """The standard error of the squared distances by which the index picks candidates, for queries like some rows.

    Args:
        dataset: the table, with an index on the column `vector`.
        among: the rows, by their numbers.
    """
    squares = list[np.ndarray]()
    for query in _sample(dataset, among):
        question = {"column": "vector", "q": query, "k": RANKS[1]}
        found = dataset.to_table(columns=["vector", "_distance"], nearest=question)
        exact = np.square(as_matrix(found["vector"].combine_chunks()) - query).sum(axis=1)
        squares.append(np.square(exact - found["_distance"].to_numpy()))
    return float(np.sqrt(np.concatenate(squares).mean()))


def _sample(dataset: Any, among: range) -> Float[np.ndarray, "Q D"]:
    """The vectors of some rows, the same ones every time."""
    rows = np.arange(among.start, among.stop)
    picked = np.sort(np.random.default_rng(0).choice(rows, size=min(_QUERIES, len(rows)), replace=False))
    return as_matrix(dataset.take(picked.tolist(), columns=["vector"])["vector"].combine_chunks())


def _needed(places: Int64[np.ndarray, "Q K"], partitions: int) -> int:
    if not places.size:
        return partitions
    covering = np.sort(places, axis=None)[math.ceil(_COVERAGE * places.size) - 1]
    return min(partitions, math.ceil(_SAFETY * (int(covering) + 1)))


def _partition_places(
    queries: Float[np.ndarray, "Q D"], neighbours: Float[np.ndarray, "Q K D"], centroids: Float[np.ndarray, "P D"]
) -> Int64[np.ndarray, "Q K"]:
    """The place of each neighbour's partition in the order in which its query looks into them."""
    places = np.empty(neighbours.shape[:2], dtype=np.int64)
    for row, (query, near) in enumerate(zip(queries, neighbours, strict=True)):
        own = _squared(near, centroids).argmin(axis=1)
        order = _squared(query[None], centroids)[0].argsort(kind="stable")
        place = np.empty(len(centroids), dtype=np.int64)
        place[order] = np.arange(len(centroids))
        places[row] = place[own]
    return places


def _nearest(dataset: Any, queries: Float[np.ndarray, "Q D"], k: int) -> Float[np.ndarray, "Q K D"]:
    """The nearest vectors, from one pass over the table."""
    Q, D = queries.shape
    distances = np.full((Q, k), np.inf, dtype=np.float32)
    vectors = np.zeros((Q, k, D), dtype=np.float32)
    for batch in dataset.to_batches(columns=["vector"], batch_size=_CHUNK_ROWS):
        chunk = as_matrix(batch["vector"])
        there = _squared(queries, chunk)
        for query in range(Q):
            closer = np.flatnonzero(there[query] < distances[query, -1])
            if not len(closer):
                continue
            joined = np.concatenate([distances[query], there[query, closer]])
            order = joined.argsort(kind="stable")[:k]
            old, new = order[order < k], order[order >= k] - k
            vectors[query, order < k] = vectors[query, old]
            vectors[query, order >= k] = chunk[closer[new]]
            distances[query] = joined[order]
    return vectors


def _squared(a: Float[np.ndarray, "A D"], b: Float[np.ndarray, "B D"]) -> Float[np.ndarray, "A B"]:
    squares: Float[np.ndarray, "A B"] = (a * a).sum(1)[:, None] + (b * b).sum(1)[None] - 2 * (a @ b.T)
    return squares


def as_matrix(column: Any) -> Float[np.ndarray, "N D"]:
    """A fixed-size list column as a matrix."""
    matrix: Float[np.ndarray, "N D"] = column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1)
    return matrix.astype(np.float32, copy=False)
