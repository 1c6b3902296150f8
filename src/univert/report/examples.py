"""Retrieval examples for people to look at: a fair sample of queries, and the worst failures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_SIMILARITIES_AT_ONCE = 8_000_000
"""Entries of a block of the similarity matrix (32 MB in float32)."""


@dataclass(frozen=True, kw_only=True)
class Neighbour:
    """One image of a ranked answer.

    Attributes:
        position: the image's row.
        rank: 1 for the nearest.
        right: whether it shows the query's product.
        distance: squared Euclidean distance of the unit vectors, 0 to 4.
    """

    position: int
    rank: int
    right: bool
    distance: float


@dataclass(frozen=True, kw_only=True)
class Retrieval:
    """A query and what a gallery answers.

    Attributes:
        query: the query's row.
        hits: the nearest images, best first, the query itself left out.
        first_right: the nearest image of the query's product, which need not be among the hits.
        right_in_gallery: how many images of the product the gallery holds.
    """

    query: int
    hits: tuple[Neighbour, ...]
    first_right: Neighbour
    right_in_gallery: int


def possible_queries(products: Sequence[str | None]) -> npt.NDArray[np.int64]:
    """Rows that can be queries: labelled images whose product has another image.

    Args:
        products: of each image; None for an unlabelled one.

    Returns:
        positions in increasing order.
    """
    count: dict[str, int] = {}
    for product in products:
        if product is not None:
            count[product] = count.get(product, 0) + 1
    rows = [row for row, product in enumerate(products) if product is not None and count[product] > 1]
    return np.asarray(rows, dtype=np.int64)


def sample_queries(
    candidates: npt.NDArray[np.int64], products: Sequence[str | None], count: int, rng: np.random.Generator
) -> list[int]:
    """Draw queries at random, each of another product.

    Args:
        candidates: rows to draw from, as from `possible_queries`.
        products: of each image.
        count: how many to draw; fewer come back where there are fewer products.
        rng: decides.
    """
    drawn: dict[str | None, int] = {}
    for row in rng.permutation(candidates):
        if len(drawn) == count:
            break
        drawn.setdefault(products[int(row)], int(row))
    return list(drawn.values())


def retrieve(
    vectors: npt.NDArray[np.float32],
    products: Sequence[str | None],
    queries: Sequence[int],
    gallery: npt.NDArray[np.int64],
    *,
    k: int,
) -> list[Retrieval]:
    """Rank a gallery for each query, leaving the query itself out; equal distances rank the wrong image first.

    Args:
        vectors: (N, D) unit vectors.
        products: of each image; None for an unlabelled one.
        queries: rows whose product has another image in the gallery.
        gallery: rows to search.
        k: hits to return.

    Returns:
        one retrieval a query, in order.
    """
    gallery_products = np.asarray([products[int(row)] for row in gallery], dtype=object)
    gallery_vectors = vectors[gallery]
    found = []
    for query in queries:
        right = gallery_products == products[query]
        distance = np.maximum(2.0 - 2.0 * (gallery_vectors @ vectors[query]), 0.0)
        order = np.lexsort((right, distance))
        order = order[gallery[order] != query]
        first_right = int(right[order].argmax())
        ranked = {
            place: Neighbour(
                position=int(gallery[order[place]]),
                rank=place + 1,
                right=bool(right[order[place]]),
                distance=float(distance[order[place]]),
            )
            for place in (*range(min(k, len(order))), first_right)
        }
        found.append(
            Retrieval(
                query=int(query),
                hits=tuple(ranked[place] for place in range(min(k, len(order)))),
                first_right=ranked[first_right],
                right_in_gallery=int(right[order].sum()),
            )
        )
    return found


def worst_queries(
    vectors: npt.NDArray[np.float32],
    products: Sequence[str | None],
    queries: npt.NDArray[np.int64],
    gallery: npt.NDArray[np.int64],
    *,
    count: int,
) -> list[int]:
    """The queries whose first right answer ranks worst, worst first, one a product, misses only.

    Args:
        vectors: (N, D) unit vectors.
        products: of each image.
        queries: rows to look at, each with another image of its product in the gallery.
        gallery: rows to search.
        count: the most to return.
    """
    codes = _codes(products)
    gallery_vectors, gallery_codes = vectors[gallery].T, codes[gallery]
    chunk = max(1, _SIMILARITIES_AT_ONCE // max(1, len(gallery)))
    ranks = np.empty(len(queries), dtype=np.int64)
    for start in range(0, len(queries), chunk):
        rows = queries[start : start + chunk]
        similarity = vectors[rows] @ gallery_vectors
        similarity[rows[:, None] == gallery] = -np.inf
        right = codes[rows][:, None] == gallery_codes
        best = np.where(right, similarity, -np.inf).max(axis=1, keepdims=True)
        ranks[start : start + len(rows)] = 1 + ((similarity >= best) & ~right).sum(axis=1)
    worst: dict[int, int] = {}
    for at in np.lexsort((queries, -ranks)):
        if ranks[at] == 1 or len(worst) == count:
            break
        worst.setdefault(int(codes[queries[at]]), int(queries[at]))
    return list(worst.values())


def _codes(products: Sequence[str | None]) -> npt.NDArray[np.int64]:
    code_of: dict[str, int] = {}
    return np.asarray(
        [-1 if product is None else code_of.setdefault(product, len(code_of)) for product in products], dtype=np.int64
    )
