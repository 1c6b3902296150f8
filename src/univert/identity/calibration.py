"""Calibration of identity: fitted on the val split of a catalogue, measured on its test split.

Every image of the split is a query three times, as people's photos are:

- `known product`: without the image itself; its product's other images may answer.
- `new product`: without its whole product: the index has never seen it.
- `new value`: without everything that has its value (its whole vertical, brand or style): the right answer is nothing.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from jaxtyping import Float

from univert.core.errors import BadInputError
from univert.core.protocols import Images
from univert.core.terminal import progress_bar
from univert.identity.calibration_fit import Questions, Sample, fit, measure
from univert.identity.vote import ATTRIBUTES, FARTHEST, NO_VOTE, AttributeCalibration, Calibration, value_codes
from univert.models.runtime.engine import Engine
from univert.models.runtime.pixels import prepared_batches
from univert.search.index import Index
from univert.search.records import Hit

KNOWN_PRODUCT, NEW_PRODUCT, NEW_VALUE = "known product", "new product", "new value"

_FETCH: Final = 200
"""Neighbours fetched, so that enough remain when a product or a value is left out."""
_AT_ONCE: Final = 64
_MAX_VALUES: Final = 200
"""Attributes with more values than this are not searched again: leaving one out hardly empties a list."""
_LEAST_QUESTIONS: Final = 50


@dataclass(frozen=True, kw_only=True)
class CalibrationConfig:
    """What is asked of a calibration.

    Attributes:
        neighbours: how many vote.
        precision: share of right answers among those called known, by attribute; 0.9 where none is given.
        new_product_share: of photos whose product is not in the index, among all that will be asked about.
        new_value_share: of photos whose vertical (brand, style) is not in the index.
        max_queries: images of a split that ask; more are left out at random.

    Raises:
        BadInputError: a value is out of range, or an unknown attribute.
    """

    neighbours: int = 24
    precision: Mapping[str, float] = dataclasses.field(default_factory=dict)
    new_product_share: float = 0.2
    new_value_share: float = 0.1
    max_queries: int = 2000

    def __post_init__(self) -> None:
        for name in ("neighbours", "max_queries"):
            if getattr(self, name) < 1:
                raise BadInputError(f"{name} must be at least 1, got {getattr(self, name)}")
        for attribute, precision in self.precision.items():
            if attribute not in ATTRIBUTES:
                raise BadInputError(f"precision: no attribute {attribute!r}; there are {', '.join(ATTRIBUTES)}")
            if not 0 < precision < 1:
                raise BadInputError(f"precision of {attribute} must lie between 0 and 1, got {precision}; 0.9 is usual")
        shares = (self.new_product_share, self.new_value_share)
        if not (min(shares) >= 0 and sum(shares) < 1):
            raise BadInputError(
                f"new_product_share and new_value_share must be at least 0 and below 1 together, got {shares}"
            )

    def shares(self, attribute: str) -> dict[str, float]:
        """How much of what will be asked about an attribute is in each situation."""
        new_value = 0.0 if attribute == "product" else self.new_value_share
        return {
            KNOWN_PRODUCT: 1 - self.new_product_share - new_value,
            NEW_PRODUCT: self.new_product_share,
            NEW_VALUE: new_value,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Query:
    """A labelled image that asks.

    Attributes:
        id: its own name, so that it does not answer itself.
        labels: its value of each of `ATTRIBUTES`; None where unknown.
    """

    id: str
    labels: Mapping[str, str | None]


def calibrate(engine: Engine, index: Index, catalogue: Images, config: CalibrationConfig | None = None) -> Calibration:
    """Fit how the neighbours' votes are read, and measure how well that does.

    Args:
        engine: as it will answer queries.
        index: as it will be searched; it may hold the queries' own images, which do not answer themselves.
        catalogue: holds labelled images in the splits `val` (fitted on) and `test` (measured on).
        config: what is asked.

    Raises:
        BadInputError: another model than the index's, no `val` split, or too few labelled images in it.
    """
    config = config or CalibrationConfig()
    index.check_model(engine.fingerprint)
    val = _questions(engine, index, catalogue, "val", config)
    if val is None:
        raise BadInputError(
            "the catalogue has no images in the split val, which the thresholds are fitted on; "
            "give the catalogue that the model was trained with"
        )
    test = _questions(engine, index, catalogue, "test", config)
    attributes: dict[str, AttributeCalibration] = {}
    report: dict[str, Any] = {}
    for name in ATTRIBUTES:
        shares = config.shares(name)
        sample = Sample.of(val[name], shares)
        if len(sample) < _LEAST_QUESTIONS or len(np.unique(sample.truth)) < 2:
            continue
        attributes[name] = fit(sample, precision=config.precision.get(name, 0.9))
        report[name] = {"val": measure(sample, attributes[name])}
        if test is not None and len(held_out := Sample.of(test[name], shares)):
            report[name]["test"] = measure(held_out, attributes[name])
    if not attributes:
        raise BadInputError(
            f"nothing can be calibrated: no attribute has {_LEAST_QUESTIONS} labelled val images of two values"
        )
    return Calibration(
        model_fingerprint=engine.fingerprint,
        engine=engine.name,
        neighbours=config.neighbours,
        attributes=attributes,
        report={"images": len(index), "config": dataclasses.asdict(config), "attributes": report},
    )


def _questions(
    engine: Engine, index: Index, catalogue: Images, split: str, config: CalibrationConfig
) -> dict[str, dict[str, Questions]] | None:
    rows = np.flatnonzero(catalogue.column("split") == split)
    if not len(rows):
        return None
    rng = np.random.default_rng(0)
    rows = np.sort(rng.permutation(rows)[: config.max_queries])
    columns = {name: catalogue.column(name)[rows] for name in ("id", *ATTRIBUTES)}
    queries = [
        Query(id=str(columns["id"][i]), labels={name: columns[name][i] for name in ATTRIBUTES})
        for i in range(len(rows))
    ]
    with progress_bar(f"asking about {split}", 2 * len(rows)) as advance:
        vectors = []
        for pixels in prepared_batches(engine.preprocessing, catalogue, positions=rows.tolist()):
            vectors.append(engine.run(pixels))
            advance(len(pixels))
        return ask(
            index,
            queries,
            np.concatenate(vectors),
            neighbours=config.neighbours,
            model_fingerprint=engine.fingerprint,
            advance=advance,
        )


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
    situations = (KNOWN_PRODUCT, NEW_PRODUCT, NEW_VALUE)
    sheets = {name: {situation: _Sheet(neighbours) for situation in situations} for name in ATTRIBUTES}
    del sheets["product"][NEW_VALUE]  # that is a new product
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
