"""Image-search triplets from rated results: one query's pictures, and another query's of the same vertical."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int64

from univert.data.duplicates import NearDuplicates

_NEAREST: Final = 10
"""A negative is one of so many candidates that are nearest to the anchor, and farther than the positive."""
_POSITIVES: Final = 0.25
"""A positive is among this share of the query's other pictures, those nearest to the anchor."""
_LOOKED_AT: Final = 500
"""Candidates that are looked at for a negative, nearest first: most of the nearest are the query's own."""
_COSINES_AT_ONCE: Final = 2_000_000


@dataclass(frozen=True, kw_only=True, eq=False)
class KeptResults:
    """The pictures that queries kept, one row each; all pictures of a query are of one vertical.

    Attributes:
        vertical: (R,) of the query.
        query: (R,) its text.
        picture: (R,) position among the images.
        vectors: (N, D) unit vectors, by position.
        near: tells near-duplicates, by position.
    """

    vertical: np.ndarray
    query: np.ndarray
    picture: Int64[np.ndarray, " R"]
    vectors: Float[np.ndarray, "N D"]
    near: NearDuplicates


class ImageTriplet(NamedTuple):
    """Three pictures by their positions, and the query that the first two answer."""

    anchor: int
    positive: int
    negative: int
    query: str
    vertical: str


def make_triplets(kept: KeptResults, *, per_vertical: int, seed: int = 0) -> Iterator[ImageTriplet]:
    """Triplets of each vertical, balanced over its queries.

    Queries take turns; each gives one triplet a turn, with another anchor, until a vertical has enough or every
    picture of every query was an anchor. The positive is a picture of the same query, one of those nearest to the
    anchor, and no near-duplicate of it. The negative is semi-hard (FaceNet, Schroff et al. 2015): farther from the
    anchor than the positive, and one of the nearest that are. It is no picture of any query that has the anchor or the
    positive, and no near-duplicate of the two. On the home sample's log, 0.8% of the negatives show the anchor's
    product all the same. Leaving out queries that mean nearly the same as the anchor's (cosine of MiniLM above 0.6)
    would make that 0.2%, but with them go the hard ones, "red chair" beside "blue chair".

    Args:
        kept: what to make them from.
        per_vertical: the most of a vertical.
        seed: of everything random.
    """
    rng = np.random.default_rng(seed)
    for vertical in sorted(set(kept.vertical.tolist())):
        yield from _Vertical(kept, kept.vertical == vertical, rng).triplets(vertical, per_vertical)


class _Vertical:
    """The kept results of one vertical; its pictures are numbered anew."""

    def __init__(self, kept: KeptResults, rows: Bool[np.ndarray, " R"], rng: np.random.Generator) -> None:
        self._near, self._rng = kept.near, rng
        self._positions, pictures = np.unique(kept.picture[rows], return_inverse=True)
        self._vectors = np.asarray(kept.vectors[self._positions], np.float32)
        self._pictures: dict[str, list[int]] = defaultdict(list)
        self._queries: list[set[str]] = [set() for _ in self._positions]
        for query, picture in zip(kept.query[rows].tolist(), pictures.tolist(), strict=True):
            self._pictures[query].append(picture)
            self._queries[picture].add(query)

    def triplets(self, vertical: str, most: int) -> Iterator[ImageTriplet]:
        made = set[tuple[int, int, int]]()
        turns = self._turns()
        while some := list(itertools.islice(turns, max(1, _COSINES_AT_ONCE // len(self._positions)))):
            alike = self._vectors[[anchor for _, anchor in some]] @ self._vectors.T
            for (query, anchor), cosines in zip(some, alike, strict=True):
                positive = self._positive(query, anchor, cosines)
                negative = None if positive is None else self._negative(anchor, positive, cosines)
                if positive is None or negative is None or (anchor, positive, negative) in made:
                    continue  # two queries may give the same
                made.add((anchor, positive, negative))
                first, second, third = self._positions[[anchor, positive, negative]].tolist()
                yield ImageTriplet(first, second, third, query, vertical)
                if len(made) == most:
                    return

    def _turns(self) -> Iterator[tuple[str, int]]:
        """Queries and anchors, one of every query a turn."""
        order = {query: self._rng.permutation(pictures).tolist() for query, pictures in self._pictures.items()}
        queries = list(order)
        for turn in range(max(map(len, order.values()))):
            for place in self._rng.permutation(len(queries)).tolist():
                pictures = order[queries[place]]
                if len(pictures) > 1 and turn < len(pictures):
                    yield queries[place], pictures[turn]

    def _positive(self, query: str, anchor: int, cosines: Float32[np.ndarray, " P"]) -> int | None:
        others = np.array([picture for picture in self._pictures[query] if picture != anchor])
        others = others[~self._copies(anchor, others)]
        if not len(others):
            return None
        nearest = others[np.argsort(-cosines[others])]
        return int(self._rng.choice(nearest[: max(1, round(_POSITIVES * len(nearest)))]))

    def _negative(self, anchor: int, positive: int, cosines: Float32[np.ndarray, " P"]) -> int | None:
        asked = self._queries[anchor] | self._queries[positive]
        farther = np.where(cosines < cosines[positive], cosines, -np.inf)
        looked_at = min(_LOOKED_AT, len(farther))
        nearest = np.argpartition(-farther, looked_at - 1)[:looked_at]
        nearest = nearest[np.argsort(-farther[nearest], kind="stable")]
        others = (
            picture
            for picture in nearest[np.isfinite(farther[nearest])].tolist()
            if asked.isdisjoint(self._queries[picture])
        )
        found = np.fromiter(itertools.islice(others, 2 * _NEAREST), np.int64)
        found = found[~(self._copies(anchor, found) | self._copies(positive, found))][:_NEAREST]
        return int(self._rng.choice(found)) if len(found) else None

    def _copies(self, picture: int, others: Int64[np.ndarray, " O"]) -> Bool[np.ndarray, " O"]:
        """Which of them are nearly the same."""
        return self._near(self._positions[[picture]], self._positions[others])
