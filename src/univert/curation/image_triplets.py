"""Image-search triplets from rated results: one query's pictures, and another query's of the same vertical."""

from __future__ import annotations

import csv
import io
import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Int64

from univert.data.duplicates import NearDuplicates
from univert.data.triplets import ROLES

_NEAREST: Final = 10
"""A negative is one of so many candidates that are nearest to the anchor, and farther than the positive."""
_POSITIVES: Final = 0.25
"""A positive is among this share of the query's other pictures, those nearest to the anchor."""
_LOOKED_AT: Final = 500
"""Candidates that are looked at for a negative, nearest first: most of the nearest are the query's own."""
_COSINES_AT_ONCE: Final = 2_000_000


@dataclass(frozen=True, kw_only=True, eq=False)
class KeptResults:
    """The pictures that queries kept, one row each.

    Attributes:
        queries: the distinct queries, each of one vertical.
        verticals: of each.
        query: (R,) row of the query.
        picture: (R,) row of the picture.
        vectors: (G, D) unit vectors of the pictures.
        near: tells near-duplicates among the pictures by `positions`.
        positions: (G,) of the pictures in the catalogue.
    """

    queries: Sequence[str]
    verticals: Sequence[str]
    query: Int64[np.ndarray, " R"]
    picture: Int64[np.ndarray, " R"]
    vectors: Float[np.ndarray, "G D"]
    near: NearDuplicates
    positions: Int64[np.ndarray, " G"]


class ImageTriplet(NamedTuple):
    """Three pictures by their rows, and the query that the first two answer."""

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
    positive. On the home sample's log, 0.8% of the negatives show the anchor's product all the same. Leaving out
    queries that mean nearly the same as the anchor's (cosine of MiniLM above 0.6) would make that 0.2%, but with them
    go the hard ones, "red chair" beside "blue chair".

    Args:
        kept: what to make them from.
        per_vertical: the most of a vertical.
        seed: of everything random.
    """
    rng = np.random.default_rng(seed)
    vertical_of = np.array(kept.verticals)
    for vertical in sorted(set(kept.verticals)):
        rows = np.flatnonzero(vertical_of[kept.query] == vertical)
        if len(rows):
            yield from _Vertical(kept, rows, rng).triplets(vertical, per_vertical)


class _Vertical:
    """The kept results of one vertical; its pictures are numbered anew."""

    def __init__(self, kept: KeptResults, rows: Int64[np.ndarray, " V"], rng: np.random.Generator) -> None:
        self._kept, self._rng = kept, rng
        self._rows, pictures = np.unique(kept.picture[rows], return_inverse=True)
        self._vectors = np.asarray(kept.vectors[self._rows], np.float32)
        self._pictures: dict[int, list[int]] = defaultdict(list)
        self._queries: list[set[int]] = [set() for _ in self._rows]
        for query, picture in zip(kept.query[rows].tolist(), pictures.tolist(), strict=True):
            self._pictures[query].append(picture)
            self._queries[picture].add(query)

    def triplets(self, vertical: str, most: int) -> Iterator[ImageTriplet]:
        made = set[tuple[int, int, int]]()
        turns = self._turns()
        while some := list(itertools.islice(turns, max(1, _COSINES_AT_ONCE // len(self._rows)))):
            alike = self._vectors[[anchor for _, anchor in some]] @ self._vectors.T
            for (query, anchor), cosines in zip(some, alike, strict=True):
                positive = self._positive(query, anchor, cosines)
                negative = None if positive is None else self._negative(anchor, positive, cosines)
                if positive is None or negative is None or (anchor, positive, negative) in made:
                    continue  # two queries may give the same
                made.add((anchor, positive, negative))
                first, second, third = self._rows[[anchor, positive, negative]].tolist()
                yield ImageTriplet(first, second, third, self._kept.queries[query], vertical)
                if len(made) == most:
                    return

    def _turns(self) -> Iterator[tuple[int, int]]:
        """Queries and anchors, one of every query a turn."""
        order = {query: self._rng.permutation(pictures).tolist() for query, pictures in self._pictures.items()}
        for turn in range(max(map(len, order.values()))):
            for query in self._rng.permutation(list(order)).tolist():
                if len(order[query]) > 1 and turn < len(order[query]):
                    yield query, order[query][turn]

    def _positive(self, query: int, anchor: int, cosines: Float32[np.ndarray, " P"]) -> int | None:
        others = np.array([picture for picture in self._pictures[query] if picture != anchor])
        at = self._kept.positions[self._rows[others]]
        others = others[~self._kept.near(self._kept.positions[self._rows[[anchor]]], at)]
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
        found = list(itertools.islice(others, _NEAREST))
        return int(self._rng.choice(found)) if found else None


def triplets_csv(triplets: Sequence[ImageTriplet], ids: Mapping[int, str] | Sequence[str]) -> str:
    """The table that `univert rate` and `univert finetune` read, with the query and the vertical beside."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow([*ROLES, "query", "vertical"])
    for one in triplets:
        rows.writerow([ids[one.anchor], ids[one.positive], ids[one.negative], one.query, one.vertical])
    return text.getvalue()


def count_by_vertical(triplets: Sequence[ImageTriplet]) -> dict[str, int]:
    """How many of each vertical, sorted by name."""
    return dict(sorted(Counter(one.vertical for one in triplets).items()))
