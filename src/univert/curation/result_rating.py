"""The pictures of each query of a log, rated: which are in, which are out, and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
from jaxtyping import Float

from univert.core.terminal import progress_bar
from univert.curation.parts import Parts
from univert.curation.picture_match import MatchRating, PictureMatch, ResultList
from univert.curation.picture_rating import RatedPictures
from univert.models.text_tower import TextTower

RATINGS: Final = pa.schema(
    [
        ("number", pa.int64()),
        ("id", pa.string()),
        ("position", pa.int64()),
        ("rank", pa.int32()),
        ("probability", pa.float32()),
        ("kept", pa.bool_()),
        ("stage", pa.string()),
        ("why", pa.string()),
    ]
)
"""A row for each picture of each query that has a vertical. `number` is the query's, `position` the picture's among the
images, -1 where it is not there; `probability` that the query describes it is None where nobody asked. `stage` is what
left it out, `match` for those kept."""

_SEARCHED_AT_ONCE: Final = 64


class ResultRating:
    """Rates the pictures of queries.

    Args:
        pictures: what is known of the pictures.
        vectors: (N, D) of the good ones, by position.
        tower: words to vectors.
        match: how well a query describes a picture.
        least: the least probability of a picture that is kept.
        verticals: the known ones: a picture whose vertical is another of them is out.
        search: how many pictures are found for a query whose results are not known.
    """

    def __init__(
        self,
        pictures: RatedPictures,
        vectors: Float[np.ndarray, "N D"],
        tower: TextTower,
        match: PictureMatch,
        *,
        least: float,
        verticals: Sequence[str],
        search: int,
    ) -> None:
        self._pictures, self._vectors, self._tower, self._match, self._least, self._search = (
            pictures, vectors, tower, match, least, search
        )  # fmt: skip
        self._position = {name: row for row, name in enumerate(pictures.images.column("id").tolist())}
        known = set(verticals)
        told = pictures.images.column("vertical").tolist()
        self._vertical = [vertical if vertical in known else None for vertical in told]

    def rate_all(self, queries: Parts, ratings: Parts) -> None:
        """Rate what is in `queries` and not yet in `ratings`, a part for a part."""
        with progress_bar("rating results", queries.count, unit="parts of the log") as advance:
            advance(ratings.count)
            for part in range(ratings.count, queries.count):
                table = queries.read(part, ["number", "query", "vertical", "results"])
                ratings.append(self.rate(table.filter(table["vertical"].is_valid()).to_pylist()))
                advance(1)

    def rate(self, queries: Sequence[dict[str, Any]]) -> pa.Table:
        """The rows of `RATINGS` for some queries: `number`, `query`, `vertical`, and `results` with id, rank, title."""
        self._find_results([query for query in queries if query["results"] is None])
        rows: list[dict[str, Any]] = []
        lists, places = [], []
        for query in queries:
            first = len(rows)
            rows += [self._first_look(query, result) for result in query["results"] or ()]
            self._leave_out_repeated(rows[first:])
            left = [place for place in range(first, len(rows)) if rows[place]["stage"] == "match"]
            if left:
                titles = [query["results"][place - first]["title"] for place in left]
                vectors = self._vectors[[rows[place]["position"] for place in left]]
                lists.append(ResultList(query=query["query"], vectors=vectors, titles=titles))
                places += left
        for place, rating in zip(places, self._match.rate(self._tower, lists), strict=True):
            rows[place] |= self._judged(rating)
        return pa.Table.from_pylist(rows, schema=RATINGS)

    def _find_results(self, queries: Sequence[dict[str, Any]]) -> None:
        """Search the good pictures with the words of queries whose results are not known."""
        ids, good = self._pictures.images.column("id"), np.flatnonzero(self._pictures.good)
        if not len(good):
            return
        most = min(self._search, len(good))
        for start in range(0, len(queries), _SEARCHED_AT_ONCE):
            some = queries[start : start + _SEARCHED_AT_ONCE]
            scores = (self._tower.embed([query["query"] for query in some]) @ self._vectors.T)[:, good]
            nearest = np.argpartition(-scores, most - 1, axis=1)[:, :most]
            for query, row, score in zip(some, nearest, scores, strict=True):
                found = good[row[np.argsort(-score[row], kind="stable")]].tolist()
                query["results"] = [
                    {"id": ids[at], "rank": rank, "title": None} for rank, at in enumerate(found, start=1)
                ]

    def _first_look(self, query: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
        position = self._position.get(result["id"], -1)
        stage, why = "match", None
        if position < 0:
            stage, why = "missing", "not among the images"
        elif self._vertical[position] not in (None, query["vertical"]):
            stage, why = "vertical", f"it is of {self._vertical[position]!r}, the query asks for {query['vertical']!r}"
        elif self._pictures.why[position] is not None:
            stage, why = "pixels", self._pictures.why[position]
        found = {"number": query["number"], "id": result["id"], "position": position, "rank": result["rank"]}
        return found | {"probability": None, "kept": False, "stage": stage, "why": why}

    def _leave_out_repeated(self, rows: list[dict[str, Any]]) -> None:
        """Of pictures that are nearly the same, the first stays."""
        left = [row for row in rows if row["stage"] == "match"]
        positions = np.array([row["position"] for row in left], np.int64)
        alike = self._pictures.near(positions[:, None], positions[None, :])
        for place in np.flatnonzero(np.triu(alike, 1).any(0)).tolist():
            for first in np.flatnonzero(alike[:place, place]).tolist():
                if left[first]["stage"] == "match":
                    why = f"nearly the same as {left[first]['id']!r}, which comes before it"
                    left[place] |= {"stage": "repeated", "why": why}
                    break

    def _judged(self, rating: MatchRating) -> dict[str, Any]:
        kept = rating.probability >= self._least
        why = "; ".join(rating.reasons) or "nothing speaks strongly for it or against it"
        return {"probability": rating.probability, "kept": kept, "why": why}
