"""How much of the exact answer an index gives."""

from __future__ import annotations

from collections.abc import Sequence
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
        queries: of each kind: stored images, and random directions, as unlike the images as a query can be.
        recall: mean share of the exact `k` nearest that were found for the stored images; images equally far count as
            one another.
        lowest: the least share of one of them.
        recall_unlike: the mean share for the random directions.
        lowest_unlike: the least share of one of them.
    """

    version: int
    images: int
    approximate: bool
    k: int
    queries: int
    recall: float
    lowest: float
    recall_unlike: float
    lowest_unlike: float


def check_recall(index: Index, *, k: int = 10, queries: int = 200, seed: int = 0) -> RecallCheck:
    """Ask about some of the stored images, and about what is unlike all, through the vector index and comparing all.

    Args:
        index: the version to check.
        k: neighbours, without the image itself.
        queries: how many of each kind; fewer if there are not so many images.
        seed: of their choice.

    Raises:
        BadInputError: `k` or `queries` is below 1.
    """
    k = check_k(k)
    if queries < 1:
        raise BadInputError(f"queries must be at least 1, got {queries}")
    rng = np.random.default_rng(seed)
    names = index.ids(rng.permutation(len(index))[:queries])
    unlike = rng.standard_normal((len(names), index.size))
    unlike /= np.linalg.norm(unlike, axis=1, keepdims=True)
    like_shares = _shares(index, index.vectors(names), names, k)
    unlike_shares = _shares(index, unlike, [None] * len(names), k)
    return RecallCheck(
        version=index.version,
        images=len(index),
        approximate=index.approximate,
        k=k,
        queries=len(names),
        recall=float(np.mean(like_shares)),
        lowest=float(np.min(like_shares)),
        recall_unlike=float(np.mean(unlike_shares)),
        lowest_unlike=float(np.min(unlike_shares)),
    )


def _shares(index: Index, vectors: np.ndarray, names: Sequence[str | None], k: int) -> list[float]:
    """For each query the share of the exact `k` nearest that were found; its own name proves nothing."""
    options: dict[str, Any] = {"k": k + 1, "model_fingerprint": index.model_fingerprint}
    found_all, exact_all = index.search_many(vectors, **options), index.search_many(vectors, **options, exact=True)
    shares = []
    for name, found, exact in zip(names, found_all, exact_all, strict=True):
        near = [hit.distance for hit in exact if hit.id != name][:k]
        there = [hit.distance for hit in found if hit.id != name][:k]
        shares.append(sum(far <= near[-1] + _SAME_DISTANCE for far in there) / len(near) if near else 1.0)
    return shares
