"""The vector index of a large table: trained when it pays, and how far a search of it has to look.

It is an inverted file: partitions of the vectors around centroids. A query is compared with the vectors of the
partitions whose centroids are nearest. How many that must be depends on the data, so it is measured on queries.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pydantic
from jaxtyping import Float, Int64
from lance.dataset import VectorIndexReader

EXACT_ROWS: Final = 50_000
"""Up to this many rows every vector is compared: 60 ns each."""

VECTOR_INDEX: Final = "vector_idx"
_ID_INDEX: Final = "id_idx"
_ROWS_A_PARTITION: Final = 1_000
_MAX_PARTITIONS: Final = 4_096
_RETRAIN_SHARE: Final = 0.1
_SMALL_FILE_ROWS: Final = 65_536
_MAX_SMALL_FILES: Final = 16
_DELETED_SHARE: Final = 0.1

EFFORT_KEY: Final = "univert.search_effort"
RANKS: Final = (10, 100, 500)
"""The numbers of neighbours that the effort is measured for."""

_QUERIES: Final = 64
_COVERAGE: Final = 0.998
_COVERAGE_UNLIKE: Final = 0.995
_SAFETY: Final = 1.5
"""Few of the vectors are asked: half as many partitions again."""
_CHUNK_ROWS: Final = 16_384


# or else the engine warns whenever partitions are read that its statistics hold all centroids
os.environ.setdefault("LANCE_INCLUDE_VECTOR_CENTROIDS", "false")


@dataclass(frozen=True, kw_only=True, slots=True)
class Effort:
    """What a search of a trained vector index takes.

    Attributes:
        rows: how many the index was trained on.
        like: partitions to look into for queries like the vectors of the index, by how many neighbours are asked for.
        unlike: the same for queries in random directions.
        distances: squared distances to the nearest centroid: the mean of the former queries, the least of the latter.
    """

    rows: int
    like: dict[int, int]
    unlike: dict[int, int]
    distances: tuple[float, float]

    def partitions(self, distances: Float[np.ndarray, " Q"], k: float) -> Int64[np.ndarray, " Q"]:
        """Partitions to look into for the `k` neighbours of each query: all where nothing was measured for so many.

        Args:
            distances: squared distance of each query to the nearest centroid.
            k: how many neighbours.
        """
        rank = next((rank for rank in RANKS if k <= rank), None)
        if rank is None:
            return np.full(len(distances), _MAX_PARTITIONS)
        near, far = self.distances
        logarithms = np.log([self.like[rank], max(self.like[rank], self.unlike[rank])])
        between = np.interp(distances, (near, max(far, near + 1e-6)), logarithms)
        partitions: Int64[np.ndarray, " Q"] = np.rint(np.exp(between)).astype(np.int64)
        return partitions


_EFFORT: Final = pydantic.TypeAdapter(Effort)


def has_vector_index(dataset: Any) -> bool:
    """Whether a table has a vector index."""
    return any(index.name == VECTOR_INDEX for index in dataset.describe_indices())


def search_effort(dataset: Any) -> Effort | None:
    """What a search of a table takes; None without a vector index, and where its training was interrupted."""
    text = (dataset.schema.metadata or {}).get(EFFORT_KEY.encode())
    return _EFFORT.validate_json(text) if text is not None and has_vector_index(dataset) else None


def renew_search_structures(dataset: Any) -> None:
    """Train the vector index where there are many rows and none is there, or too many rows came later.

    Rows that came later lie in the partition of the nearest centroid; see `partitions_of`.
    """
    rows = dataset.count_rows()
    effort, trained = search_effort(dataset), has_vector_index(dataset)
    if not trained and rows <= EXACT_ROWS:
        return
    indexed = next((index.num_rows_indexed for index in dataset.describe_indices() if index.name == VECTOR_INDEX), 0)
    if effort is None or max(rows - effort.rows, rows - indexed) > _RETRAIN_SHARE * rows:
        _train(dataset, rows)
    elif indexed < rows:
        dataset.optimize.optimize_indices(index_names=[_ID_INDEX])


def compact(dataset: Any) -> None:
    """Join small files and drop deleted rows, if there is enough to gain."""
    fragments = dataset.get_fragments()
    small = sum(fragment.physical_rows < _SMALL_FILE_ROWS for fragment in fragments)
    deleted = sum(fragment.num_deletions for fragment in fragments)
    if small > _MAX_SMALL_FILES or deleted > _DELETED_SHARE * sum(fragment.physical_rows for fragment in fragments):
        dataset.optimize.compact_files(
            target_rows_per_fragment=_SMALL_FILE_ROWS, materialize_deletions_threshold=_DELETED_SHARE
        )


def _train(dataset: Any, rows: int) -> None:
    partitions = min(max(1, rows // _ROWS_A_PARTITION), _MAX_PARTITIONS)
    # Without a measured effort a search compares everything, and the next writer trains again: safe if we are killed.
    dataset.update_schema_metadata({EFFORT_KEY: None})
    dataset.create_index(
        "vector", index_type="IVF_SQ", name=VECTOR_INDEX, metric="L2", num_partitions=partitions, replace=True
    )
    dataset.create_scalar_index("id", "BTREE", name=_ID_INDEX, replace=True)
    dataset.update_schema_metadata({EFFORT_KEY: _EFFORT.dump_json(_measure_effort(dataset)).decode()})


def _measure_effort(dataset: Any) -> Effort:
    centroids, starts, order = partitions_of(dataset)
    rows = len(order)
    own = np.empty(rows, np.int64)
    own[order] = np.repeat(np.arange(len(centroids)), np.diff(starts))
    picked = np.sort(np.random.default_rng(0).choice(rows, size=min(_QUERIES, rows), replace=False))
    like = as_matrix(dataset.take(picked.tolist(), columns=["vector"])["vector"].combine_chunks())
    queries = np.concatenate([like, _unlike(like)])
    neighbours = _nearest(dataset, queries, min(max(RANKS) + 1, rows))
    distances = squared_distances(queries, centroids)
    place = distances.argsort(axis=1).argsort(axis=1)  # of each partition in the order in which a query looks into them
    # of a stored vector it comes first itself, which proves nothing
    places = np.take_along_axis(place, own[neighbours[:, 1:]], axis=1)
    nearest = distances.min(axis=1)
    return Effort(
        rows=rows,
        like={rank: _needed(places[: len(like), :rank], len(centroids), _COVERAGE, _SAFETY) for rank in RANKS},
        unlike={rank: _needed(places[len(like) :, :rank], len(centroids), _COVERAGE_UNLIKE, 1.0) for rank in RANKS},
        distances=(float(nearest[: len(like)].mean()), float(nearest[len(like) :].min())),
    )


def _unlike(like: Float[np.ndarray, "Q D"]) -> Float[np.ndarray, "Q D"]:
    """As many random directions, the same ones every time."""
    directions = np.random.default_rng(64).standard_normal(like.shape, dtype=np.float32)
    unlike: Float[np.ndarray, "Q D"] = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    return unlike


def _needed(places: Int64[np.ndarray, "Q K"], partitions: int, coverage: float, safety: float) -> int:
    if not places.size:
        return partitions
    covering = np.sort(places, axis=None)[math.ceil(coverage * places.size) - 1]
    return min(partitions, math.ceil(safety * (int(covering) + 1)))


def _nearest(dataset: Any, queries: Float[np.ndarray, "Q D"], k: int) -> Int64[np.ndarray, "Q K"]:
    """The rows of the nearest vectors, the nearest first, from one pass over the table."""
    distances = np.full((len(queries), k), np.inf, dtype=np.float32)
    rows = np.zeros(distances.shape, dtype=np.int64)
    done = 0
    for batch in dataset.to_batches(columns=["vector"], batch_size=_CHUNK_ROWS, scan_in_order=True):
        there = squared_distances(queries, as_matrix(batch["vector"]))
        numbers = np.broadcast_to(np.arange(done, done + len(batch)), there.shape)
        joined = np.hstack([distances, there])
        closest = joined.argpartition(k - 1, axis=1)[:, :k]
        distances = np.take_along_axis(joined, closest, axis=1)
        rows = np.take_along_axis(np.hstack([rows, numbers]), closest, axis=1)
        done += len(batch)
    return np.take_along_axis(rows, distances.argsort(axis=1), axis=1)


def partitions_of(
    dataset: Any,
) -> tuple[Float[np.ndarray, "P D"], Int64[np.ndarray, " P_plus_1"], Int64[np.ndarray, " N"]]:
    """Which rows lie in which partition of the vector index; without one, all in one.

    Returns:
        centroids, none without a vector index; where each partition begins, and the last one ends, in the order of
        rows that comes third.
    """
    rows = dataset.count_rows()
    if not has_vector_index(dataset):
        return np.empty((0, dataset.schema.field("vector").type.list_size)), np.array([0, rows]), np.arange(rows)
    centroids = as_matrix(dataset.get_ivf_model(VECTOR_INDEX).centroids)
    addresses = dataset.to_table(columns=[], with_row_id=True, scan_in_order=True)["_rowid"].to_numpy()
    by_address = addresses.argsort()
    own = np.full(rows, -1)
    reader = VectorIndexReader(dataset, VECTOR_INDEX)
    for partition in range(len(centroids)):
        members = reader.read_partition(partition)["_rowid"].to_numpy()
        found = np.searchsorted(addresses, members, sorter=by_address)
        there = by_address[np.minimum(found, rows - 1)]
        own[there[addresses[there] == members]] = partition  # others were deleted or moved
    outside = np.flatnonzero(own < 0)
    for start in range(0, len(outside), _CHUNK_ROWS):
        some = outside[start : start + _CHUNK_ROWS]
        vectors = as_matrix(dataset.take(some.tolist(), columns=["vector"])["vector"].combine_chunks())
        own[some] = squared_distances(vectors, centroids).argmin(axis=1)
    order = own.argsort(kind="stable")
    return centroids, np.searchsorted(own[order], np.arange(len(centroids) + 1)), order


def squared_distances(a: Float[np.ndarray, "A D"], b: Float[np.ndarray, "B D"]) -> Float[np.ndarray, "A B"]:
    """The squared distance of each vector to each other one."""
    squares: Float[np.ndarray, "A B"] = (a * a).sum(1)[:, None] + (b * b).sum(1)[None] - 2 * (a @ b.T)
    return squares


def as_matrix(column: Any) -> Float[np.ndarray, "N D"]:
    """A fixed-size list column as a matrix."""
    matrix: Float[np.ndarray, "N D"] = column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1)
    return matrix.astype(np.float32, copy=False)
