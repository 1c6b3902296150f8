"""Image-search triplets from rated results: one query's pictures, and another query's of the same vertical."""

from __future__ import annotations

import csv
import io
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

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
_MOST_CANDIDATES: Final = 100_000
"""Of a vertical; of more, a random choice."""
_AT_ONCE: Final = 256


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


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageTriplet:
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
    """The kept results of one vertical."""

    def __init__(self, kept: KeptResults, rows: Int64[np.ndarray, " V"], rng: np.random.Generator) -> None:
        self._kept, self._rng = kept, rng
        self._pictures: dict[int, list[int]] = defaultdict(list)
        self._queries: dict[int, list[int]] = defaultdict(list)
        for query, picture in zip(kept.query[rows].tolist(), kept.picture[rows].tolist(), strict=True):
            self._pictures[query].append(picture)
            self._queries[picture].append(query)
        pool = np.array(sorted(self._queries))
        self._pool = np.sort(rng.permutation(pool)[:_MOST_CANDIDATES])

    def triplets(self, vertical: str, most: int) -> Iterator[ImageTriplet]:
        made, spent = set[tuple[int, int, int]](), 0
        anchors = list(self._turns())
        while len(made) < most and spent < len(anchors):
            some = anchors[spent : spent + _AT_ONCE]
            spent += len(some)
            alike = self._vectors(np.array([anchor for _, anchor in some])) @ self._vectors(self._pool).T
            for (query, anchor), cosines in zip(some, alike, strict=True):
                positive = self._positive(query, anchor)
                negative = None if positive is None else self._negative(anchor, positive, cosines)
                if positive is None or negative is None or len(made) == most:
                    continue
                if (anchor, positive, negative) not in made:  # two queries may give the same
                    made.add((anchor, positive, negative))
                    yield ImageTriplet(
                        anchor=anchor, positive=positive, negative=negative,
                        query=self._kept.queries[query], vertical=vertical,
                    )  # fmt: skip

    def _turns(self) -> Iterator[tuple[int, int]]:
        """Queries and anchors, one of every query a turn."""
        order = {query: self._rng.permutation(pictures).tolist() for query, pictures in self._pictures.items()}
        for turn in range(max(map(len, order.values()))):
            for query in self._rng.permutation(list(order)).tolist():
                if len(order[query]) > 1 and turn < len(order[query]):
                    yield query, order[query][turn]

    def _positive(self, query: int, anchor: int) -> int | None:
        others = np.array([picture for picture in self._pictures[query] if picture != anchor])
        at = self._kept.positions
        others = others[~self._kept.near(np.full(len(others), at[anchor]), at[others])]
        if not len(others):
            return None
        nearest = others[np.argsort(-(self._vectors(others) @ self._vectors(np.array([anchor]))[0]))]
        return int(self._rng.choice(nearest[: max(1, round(_POSITIVES * len(nearest)))]))

    def _negative(self, anchor: int, positive: int, cosines: Float32[np.ndarray, " P"]) -> int | None:
        limit = float(self._vectors(np.array([anchor]))[0] @ self._vectors(np.array([positive]))[0])
        asked = {*self._queries[anchor], *self._queries[positive]}
        theirs = {picture for query in asked for picture in self._pictures[query]}
        found: list[int] = []
        farther = np.where(cosines < limit, cosines, -np.inf)
        for place in np.argsort(-farther)[:_LOOKED_AT].tolist():
            picture = int(self._pool[place])
            if not np.isfinite(farther[place]) or len(found) == _NEAREST:
                break
            if picture not in theirs:
                found.append(picture)
        return int(self._rng.choice(found)) if found else None

    def _vectors(self, pictures: Int64[np.ndarray, " K"]) -> Float[np.ndarray, "K D"]:
        found: np.ndarray = np.asarray(self._kept.vectors[pictures], np.float32)
        return found


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
