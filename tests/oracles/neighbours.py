"""The nearest neighbours by comparing everything, from the differences in float64."""

from collections.abc import Sequence

import numpy as np


def exact_neighbours(
    queries: np.ndarray,
    vectors: np.ndarray,
    k: int,
    *,
    ids: Sequence[str] | None = None,
    allowed: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Positions (Q, K) of the allowed vectors nearest to each query, equal distances in order of `ids` (by default in
    order of position), and their squared distances (Q, K)."""
    rows = np.arange(len(vectors)) if allowed is None else np.flatnonzero(allowed)
    names = rows if ids is None else np.asarray(ids, dtype=object)[rows].astype(str)
    positions, distances = [], []
    for query in np.asarray(queries, np.float64):
        distance = np.square(vectors[rows] - query).sum(axis=1)
        order = np.lexsort((names, distance))[:k]
        positions.append(rows[order])
        distances.append(distance[order])
    return np.array(positions), np.array(distances)
