"""How much of the exact answer an index gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from univert.core.errors import BadInputError
from univert.search.index import Index
from univert.search.query import check_k

_SAME_DISTANCE: Final = 1e-5
"""Distances computed in two ways differ by less."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RecallCheck:
    """How much of the exact answer an index gives.

    Attributes:
        version: of the index.
        images: in it.
        approximate: whether it answers approximately at all.
        k: neighbours that were asked for.
        queries: stored images that were asked about.
        recall: mean share of the exact `k` nearest that were found; images equally far count as one another.
        lowest: the least share of one query.
    """

    version: int
    images: int
    approximate: bool
    k: int
    queries: int
    recall: float
    lowest: float


def check_recall(index: Index, *, k: int = 10, queries: int = 200, seed: int = 0) -> RecallCheck:
    """Ask about some of the stored images, through the vector index and by comparing all, and compare the answers.

    Args:
        index: the version to check.
        k: neighbours, without the image itself.
        queries: how many images; fewer if there are not so many.
        seed: of their choice.

    Raises:
        BadInputError: `k` or `queries` is below 1.
    """
    k = check_k(k)
    if queries < 1:
        raise BadInputError(f"queries must be at least 1, got {queries}")
    names = index.sample(queries, seed)
    vectors = index.vectors(names)
    options: dict[str, Any] = {"k": k + 1, "model_fingerprint": index.model_fingerprint}
    shares = []
    found_all, exact_all = index.search_many(vectors, **options), index.search_many(vectors, **options, exact=True)
    for name, found, exact in zip(names, found_all, exact_all, strict=True):
        # An image is its own nearest neighbour, which proves nothing.
        near = [hit.distance for hit in exact if hit.id != name][:k]
        there = [hit.distance for hit in found if hit.id != name][:k]
        shares.append(sum(far <= near[-1] + _SAME_DISTANCE for far in there) / len(near) if near else 1.0)
    return RecallCheck(
        version=index.version,
        images=len(index),
        approximate=index.approximate,
        k=k,
        queries=len(names),
        recall=float(np.mean(shares)),
        lowest=float(np.min(shares)),
    )
