"""How a question is put to the storage engine: exactly, or through the vector index."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from jaxtyping import Float

from univert.search.lance_structures import VectorIndexState
from univert.search.store import Hit

MAX_INDEXED_K: Final = 500
"""Beyond this many neighbours the index looks into so much that comparing every vector costs no more."""

FILTERED_EXACT_ROWS: Final = 1_000
"""Where filters leave no more rows than this, every vector is compared: 12 ms, twice what the index would take."""

_HIT_COLUMNS: Final = ("id", "vertical", "product", "brand", "style", "split", "source")
_MIN_CANDIDATES: Final = 50
_MIN_REFINE_FACTOR: Final = 5
"""Candidates whose full vectors are compared: five times k, and never fewer than fifty."""
_MIN_EF: Final = 400
_EF_PER_NEIGHBOUR: Final = 16
"""For the graphs that older indexes have: nodes kept in view."""
_ALL: Final = 1_000_000


def nearest(
    dataset: Any,
    queries: Float[np.ndarray, "Q D"],
    limit: int,
    condition: str | None,
    index: VectorIndexState | None,
) -> list[list[Hit]]:
    """The hits of each query, nearest first, equal distances in order of id.

    Args:
        dataset: the table of images.
        queries: unit vectors.
        limit: hits a query.
        condition: which rows may be answered; null for all.
        index: the vector index to go through; null compares every vector.
    """
    question: dict[str, Any] = {
        "column": "vector",
        "q": queries[0] if len(queries) == 1 else queries,
        "k": limit,
        "use_index": index is not None,
    }
    if index is not None:
        question |= _effort(index, limit, filtered=condition is not None)
    scanner = dataset.scanner(
        columns=[*_HIT_COLUMNS, "_distance"], nearest=question, filter=condition, prefilter=True
    )
    answers: list[list[Hit]] = [[] for _ in queries]
    for row in scanner.to_table().to_pylist():
        distance = max(0.0, row.pop("_distance"))
        answers[row.pop("query_index", 0)].append(Hit(distance=distance, **row))
    return [sorted(hits, key=lambda hit: (hit.distance, hit.id)) for hits in answers]


def _effort(index: VectorIndexState, k: int, *, filtered: bool) -> dict[str, Any]:
    # What a filter leaves may lie far from the query, in partitions that it would look into last. So all of them are
    # looked into; rows that the filter takes out cost next to nothing.
    probes = None if filtered or index.effort is None else index.effort.for_neighbours(k)
    options: dict[str, Any] = {
        "nprobes": _ALL if probes is None else probes,
        "refine_factor": max(_MIN_REFINE_FACTOR, math.ceil(_MIN_CANDIDATES / k)),
    }
    if "HNSW" in index.kind:
        options["ef"] = max(_MIN_EF, _EF_PER_NEIGHBOUR * k)
    return options
