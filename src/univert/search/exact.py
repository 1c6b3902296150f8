"""Exact nearest neighbours in plain NumPy: the oracle that a store is checked against."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike

from univert.search.store import check_k


def exact_neighbours(
    queries: ArrayLike,
    vectors: ArrayLike,
    k: int,
    *,
    ids: Sequence[str] | None = None,
    allowed: Bool[np.ndarray, " N"] | None = None,
    chunk_rows: int = 8192,
) -> tuple[Int[np.ndarray, "Q K"], Float[np.ndarray, "Q K"]]:
    """The `k` vectors nearest to each query by squared Euclidean distance, from the differences in float64.

    The direct form keeps tiny distances exact where 2 - 2 x cosine would cancel. Memory beyond the input is
    one chunk of differences and one distance a vector.

    Args:
        queries: (Q, D).
        vectors: (N, D).
        k: neighbours a query; K is the smaller of `k` and the number of allowed vectors.
        ids: names that order equal distances; by default the positions do.
        allowed: (N,), which vectors may be answered; all by default.
        chunk_rows: vectors compared at a time.

    Returns:
        positions (Q, K) in `vectors`, nearest first, and their squared distances (Q, K).

    Raises:
        BadInputError: `k` is below 1.
    """
    k = check_k(k)
    Q = np.atleast_2d(np.asarray(queries))
    X = np.atleast_2d(np.asarray(vectors))
    rows = np.arange(len(X)) if allowed is None else np.flatnonzero(allowed)
    names = rows if ids is None else np.asarray(ids, dtype=object)[rows].astype(str)
    K = min(k, len(rows))
    positions = np.empty((len(Q), K), dtype=np.int64)
    distances = np.empty((len(Q), K), dtype=np.float64)
    distance = np.empty(len(rows), dtype=np.float64)
    for index, query in enumerate(Q.astype(np.float64)):
        for start in range(0, len(rows), chunk_rows):
            difference = X[rows[start : start + chunk_rows]] - query
            distance[start : start + chunk_rows] = np.einsum("nd,nd->n", difference, difference)
        order = np.lexsort((names, distance))[:K]
        positions[index], distances[index] = rows[order], distance[order]
    return positions, distances
