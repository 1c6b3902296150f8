"""What calibration asks: images with known labels against the index, each without what it must not know.

Every image is a query three times, as people's photos are:

- `known product`: without the image itself; its product's other images may answer.
- `new product`: without its whole product: the index has never seen it.
- `new value`: without everything that has its value (its whole vertical, brand or style): the right answer is nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Bool, Float, Int

from univert.identity.identify import ATTRIBUTES, value_codes
from univert.identity.vote import FARTHEST, NO_VOTE
from univert.search.index import Index
from univert.search.records import Hit

KNOWN_PRODUCT, NEW_PRODUCT, NEW_VALUE = "known product", "new product", "new value"

_FETCH: Final = 200
"""Neighbours fetched, so that enough remain when a product or a value is left out."""
_AT_ONCE: Final = 64
_MAX_VALUES: Final = 200
"""Attributes with more values than this are not searched again: leaving one out hardly empties a list."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Query:
    """A labelled image that asks.

    Attributes:
        id: its own name, so that it does not answer itself.
        labels: its value of each of `ATTRIBUTES`; None where unknown.
    """

    id: str
    labels: Mapping[str, str | None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Questions:
    """The votes on one attribute in one situation.

    Attributes:
        distances: (Q, K) of the neighbours that may answer, nearest first, `FARTHEST` where there are no more.
        codes: (Q, K) their values as numbers, `NO_VOTE` for none.
        truth: (Q,) the right values.
    """

    distances: Float[np.ndarray, "Q K"]
    codes: Int[np.ndarray, "Q K"]
    truth: Int[np.ndarray, " Q"]

    def __len__(self) -> int:
        return len(self.truth)

    def right(self, winner: Int[np.ndarray, " Q"]) -> Bool[np.ndarray, " Q"]:
        """(Q,) whether the winner is the right value."""
        right: np.ndarray = winner == self.truth
        return right


def situations(attribute: str) -> tuple[str, ...]:
    """The situations in which an attribute is asked about; a new product is itself the new value of `product`."""
    return (KNOWN_PRODUCT, NEW_PRODUCT) if attribute == "product" else (KNOWN_PRODUCT, NEW_PRODUCT, NEW_VALUE)


def ask(
    index: Index,
    queries: Sequence[Query],
    vectors: Float[np.ndarray, "Q D"],
    *,
    neighbours: int,
    model_fingerprint: str,
    advance: Callable[[int], None] = lambda done: None,
) -> dict[str, dict[str, Questions]]:
    """Ask the index about every attribute in every situation.

    Args:
        index: it may hold the queries themselves.
        queries: labelled images.
        vectors: theirs.
        neighbours: how many may answer, K.
        model_fingerprint: of the model that made the vectors.
        advance: told how many queries are done.

    Returns:
        by attribute and situation. Queries whose value is unknown ask nothing about that attribute, and those
        without a product are never new products.
    """
    sheets = {name: {situation: _Sheet(neighbours) for situation in situations(name)} for name in ATTRIBUTES}
    codes: dict[str, dict[str, int]] = {name: {} for name in ATTRIBUTES}
    values = {name: sorted({q.labels[name] for q in queries} - {None}) for name in ATTRIBUTES}  # type: ignore[type-var]
    for start in range(0, len(queries), _AT_ONCE):
        part, rows = queries[start : start + _AT_ONCE], vectors[start : start + _AT_ONCE]
        found = index.search_many(rows, max(_FETCH, 2 * neighbours), model_fingerprint=model_fingerprint)
        for name, situation, query, hits in _allowed(part, found):
            sheets[name][situation].add(hits, name, query, codes[name])
        for name in ("vertical", "brand", "style"):
            others = [value for value in values[name] if value is not None]
            for position, hits in _without_value(index, part, rows, found, name, others, neighbours, model_fingerprint):
                sheets[name][NEW_VALUE].add(hits, name, part[position], codes[name])
        advance(len(part))
    return {
        name: {situation: sheet.questions() for situation, sheet in by_situation.items()}
        for name, by_situation in sheets.items()
    }


def _allowed(queries: Sequence[Query], found: Sequence[Sequence[Hit]]) -> Iterator[tuple[str, str, Query, list[Hit]]]:
    for query, hits in zip(queries, found, strict=True):
        others = [hit for hit in hits if hit.id != query.id]
        product = query.labels["product"]
        strangers = None if product is None else [hit for hit in others if hit.product != product]
        for name in ATTRIBUTES:
            if query.labels[name] is None:
                continue
            yield name, KNOWN_PRODUCT, query, others
            if strangers is not None:
                yield name, NEW_PRODUCT, query, strangers


def _without_value(
    index: Index,
    queries: Sequence[Query],
    vectors: Float[np.ndarray, "Q D"],
    found: Sequence[Sequence[Hit]],
    name: str,
    values: Sequence[str],
    neighbours: int,
    model_fingerprint: str,
) -> Iterator[tuple[int, list[Hit]]]:
    """Each query's neighbours of other values; searched for again where the first search met too few."""
    again: dict[str, list[int]] = defaultdict(list)
    for position, (query, hits) in enumerate(zip(queries, found, strict=True)):
        value = query.labels[name]
        if value is None:
            continue
        others = [hit for hit in hits if getattr(hit, name) != value]
        if len(others) >= neighbours or not 1 < len(values) <= _MAX_VALUES:
            yield position, others
        else:
            again[value].append(position)
    for value, positions in again.items():
        wanted: list[str | None] = [other for other in values if other != value]
        if name == "vertical":
            wanted = [other for other in index.verticals if other != value]
        else:
            wanted.append(None)
        answers = (
            index.search_many(vectors[positions], neighbours, where={name: wanted}, model_fingerprint=model_fingerprint)
            if wanted
            else [[] for _ in positions]
        )
        yield from zip(positions, answers, strict=True)


class _Sheet:
    """Questions as they come in."""

    def __init__(self, neighbours: int) -> None:
        self._neighbours = neighbours
        self._distances: list[np.ndarray] = []
        self._codes: list[np.ndarray] = []
        self._truth: list[int] = []

    def add(self, hits: Sequence[Hit], name: str, query: Query, known: dict[str, int]) -> None:
        kept = hits[: self._neighbours]
        distances = np.full(self._neighbours, FARTHEST)
        distances[: len(kept)] = np.clip([hit.distance for hit in kept], 0.0, FARTHEST)
        codes = np.full(self._neighbours, NO_VOTE)
        codes[: len(kept)] = value_codes([getattr(hit, name) for hit in kept], known)
        self._distances.append(distances)
        self._codes.append(codes)
        self._truth += value_codes([query.labels[name]], known)

    def questions(self) -> Questions:
        shape = (len(self._truth), self._neighbours)
        return Questions(
            distances=np.array(self._distances, np.float64).reshape(shape),
            codes=np.array(self._codes, np.int64).reshape(shape),
            truth=np.array(self._truth, np.int64),
        )
