"""Calibration of identity: fitted on the val split of a catalogue, measured on its test split.

Every image of the split is a query three times, as people's photos are:

- `known product`: without the image itself; its product's other images may answer.
- `new product`: without its whole product: the index has never seen it.
- `new value`: without everything that has its value (its whole vertical, brand or style): the right answer is nothing.

What people said about answers of the service may join them: each photo counts as much as one of the split.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
from jaxtyping import Float

from univert.core.errors import BadInputError
from univert.core.protocols import Images
from univert.core.terminal import progress_bar
from univert.identity.calibration_fit import Questions, Sample, fit, fit_similarity, measure
from univert.identity.feedback import Feedback, answers
from univert.identity.vote import ATTRIBUTES, FARTHEST, NO_VOTE, AttributeCalibration, Calibration, value_codes
from univert.models.runtime.engine import Engine, prepared_batches
from univert.search.index import Index
from univert.search.query import Hit

KNOWN_PRODUCT, NEW_PRODUCT, NEW_VALUE, FEEDBACK = "known product", "new product", "new value", "feedback"
NEIGHBOURS: Final = 24
"""How many vote."""

_FETCH: Final = 200
"""Neighbours fetched, so that enough remain when a product or a value is left out."""
_AT_ONCE: Final = 64
_MAX_QUERIES: Final = 2_000
_MAX_VALUES: Final = 200
"""Attributes with more values than this are not searched again: leaving one out hardly empties a list."""
_LEAST_QUESTIONS: Final = 50


def calibrate(
    engine: Engine,
    index: Index,
    catalogue: Images,
    *,
    precision: Mapping[str, float] | None = None,
    new_product_share: float = 0.2,
    new_value_share: float = 0.1,
    feedback: Sequence[Feedback] = (),
) -> Calibration:
    """Fit how the neighbours' votes are read, and measure how well that does.

    Args:
        engine: as it will answer queries.
        index: as it will be searched; it may hold the queries' own images, which do not answer themselves.
        catalogue: holds labelled images in the splits `val` (fitted on) and `test` (measured on).
        precision: share of right answers among those called known, by attribute; 0.9 where none is given.
        new_product_share: of photos whose product is not in the index, among all that will be asked about.
        new_value_share: of photos whose vertical (brand, style) is not in the index.
        feedback: what people said about answers of this model; fitted on together with `val`.

    Raises:
        BadInputError: a value is out of range, an unknown attribute, another model than the index's, no `val` split, or
            too few labelled images in it.
    """
    precision = precision or {}
    _check(precision, new_product_share, new_value_share)
    index.check_model(engine.fingerprint)
    val = _questions(engine, index, catalogue, "val")
    if val is None:
        raise BadInputError(
            "the catalogue has no images in the split val, which the thresholds are fitted on; "
            "give the catalogue that the model was trained with"
        )
    test = _questions(engine, index, catalogue, "test")
    attributes: dict[str, AttributeCalibration] = {}
    report: dict[str, Any] = {}
    similarity = None
    for name in ATTRIBUTES:
        told = val[name][FEEDBACK] = _as_questions(answers(feedback, name), name)
        new_value = 0.0 if name == "product" else new_value_share
        shares = {
            KNOWN_PRODUCT: 1 - new_product_share - new_value,
            NEW_PRODUCT: new_product_share,
            NEW_VALUE: new_value,
            FEEDBACK: len(told) / max(1, len(val[name][KNOWN_PRODUCT])),
        }
        sample = Sample.of(val[name], shares)
        if len(sample) < _LEAST_QUESTIONS or len(np.unique(sample.truth)) < 2:
            continue
        attributes[name] = fit(sample, precision=precision.get(name, 0.9))
        if name in ("vertical", "style"):
            similarity = fit_similarity(sample) or similarity
        report[name] = {"val": measure(sample, attributes[name])}
        if test is not None and len(held_out := Sample.of(test[name], shares)):
            report[name]["test"] = measure(held_out, attributes[name])
    if not attributes:
        raise BadInputError(
            f"nothing can be calibrated: no attribute has {_LEAST_QUESTIONS} labelled val images of two values"
        )
    asked = {"precision": dict(precision), "new_product_share": new_product_share, "new_value_share": new_value_share}
    return Calibration(
        model_fingerprint=engine.fingerprint,
        engine=engine.name,
        neighbours=NEIGHBOURS,
        attributes=attributes,
        similarity_weights=similarity,
        report={"images": len(index), "config": asked, "attributes": report},
    )


def _check(precision: Mapping[str, float], new_product_share: float, new_value_share: float) -> None:
    for attribute, share in precision.items():
        if attribute not in ATTRIBUTES:
            raise BadInputError(f"precision: no attribute {attribute!r}; there are {', '.join(ATTRIBUTES)}")
        if not 0 < share < 1:
            raise BadInputError(f"precision of {attribute} must lie between 0 and 1, got {share}; 0.9 is usual")
    shares = (new_product_share, new_value_share)
    if not (min(shares) >= 0 and sum(shares) < 1):
        raise BadInputError(
            f"new_product_share and new_value_share must be at least 0 and below 1 together, got {shares}"
        )


def _questions(engine: Engine, index: Index, catalogue: Images, split: str) -> dict[str, dict[str, Questions]] | None:
    rows = np.flatnonzero(catalogue.column("split") == split)
    if not len(rows):
        return None
    rows = np.sort(np.random.default_rng(0).permutation(rows)[:_MAX_QUERIES])
    columns = {name: catalogue.column(name)[rows] for name in ("id", *ATTRIBUTES)}
    queries = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    with progress_bar(f"asking about {split}", 2 * len(rows)) as advance:
        vectors = []
        for pixels in prepared_batches(engine.preprocessing, catalogue, positions=rows.tolist()):
            vectors.append(engine.run(pixels))
            advance(len(pixels))
        return ask(index, queries, np.concatenate(vectors), advance=advance)


def ask(
    index: Index,
    queries: Sequence[Mapping[str, str | None]],
    vectors: Float[np.ndarray, "Q D"],
    *,
    advance: Callable[[int], None] = lambda done: None,
) -> dict[str, dict[str, Questions]]:
    """Ask the index about every attribute in every situation.

    Args:
        index: it may hold the queries themselves.
        queries: of each its `id`, so that it does not answer itself, and its value of each of `ATTRIBUTES`, None where
            unknown.
        vectors: theirs.
        advance: told how many queries are done.

    Returns:
        by attribute and situation. Queries whose value is unknown ask nothing about that attribute, and those
        without a product are never new products.
    """
    asked: dict[tuple[str, str], list[_Asked]] = defaultdict(list)
    values = {name: sorted({value for query in queries if (value := query[name]) is not None}) for name in ATTRIBUTES}
    for start in range(0, len(queries), _AT_ONCE):
        part, rows = queries[start : start + _AT_ONCE], vectors[start : start + _AT_ONCE]
        found = index.search_many(rows, _FETCH, model_fingerprint=index.model_fingerprint)
        for query, hits in zip(part, found, strict=True):
            others = [hit for hit in hits if hit.id != query["id"]]
            strangers = [hit for hit in others if hit.product != query["product"]]
            for name in ATTRIBUTES:
                value = query[name]
                if value is not None:
                    asked[name, KNOWN_PRODUCT].append((value, others[:NEIGHBOURS]))
                    if query["product"] is not None:
                        asked[name, NEW_PRODUCT].append((value, strangers[:NEIGHBOURS]))
        for name in ("vertical", "brand", "style"):  # a new value of product is a new product
            own = [query[name] for query in part]
            asked[name, NEW_VALUE] += _without_value(index, own, rows, found, name, values[name])
        advance(len(part))
    return {
        name: {
            situation: _as_questions(asked[name, situation], name)
            for situation in (KNOWN_PRODUCT, NEW_PRODUCT, NEW_VALUE)
            if (name, situation) != ("product", NEW_VALUE)
        }
        for name in ATTRIBUTES
    }


_Asked = tuple[str, Sequence[Hit]]
"""The right value, and the neighbours that may answer."""


def _without_value(
    index: Index,
    own: Sequence[str | None],
    vectors: Float[np.ndarray, "Q D"],
    found: Sequence[Sequence[Hit]],
    name: str,
    values: Sequence[str],
) -> Iterator[_Asked]:
    """Each query's neighbours of other values; searched for again where the first search met too few."""
    again: dict[str, list[int]] = defaultdict(list)
    for position, (value, hits) in enumerate(zip(own, found, strict=True)):
        if value is None:
            continue
        others = [hit for hit in hits if getattr(hit, name) != value]
        if len(others) >= NEIGHBOURS or not 1 < len(values) <= _MAX_VALUES:
            yield value, others[:NEIGHBOURS]
        else:
            again[value].append(position)
    for value, positions in again.items():
        there: list[str | None] = [*index.verticals] if name == "vertical" else [*values, None]
        where = {name: [other for other in there if other != value]}
        answers: list[list[Hit]] = [[] for _ in positions]
        if where[name]:
            model = index.model_fingerprint
            answers = index.search_many(vectors[positions], NEIGHBOURS, where=where, model_fingerprint=model)
        yield from ((value, hits) for hits in answers)


def _as_questions(asked: Sequence[_Asked], name: str) -> Questions:
    distances = np.full((len(asked), NEIGHBOURS), FARTHEST)
    codes = np.full((len(asked), NEIGHBOURS), NO_VOTE)
    known: dict[str, int] = {}
    for row, (_, hits) in enumerate(asked):
        hits = hits[:NEIGHBOURS]
        distances[row, : len(hits)] = np.clip([hit.distance for hit in hits], 0.0, FARTHEST)
        codes[row, : len(hits)] = value_codes([getattr(hit, name) for hit in hits], known)
    truth = np.array(value_codes([value for value, _ in asked], known), np.int64)
    return Questions(distances=distances, codes=codes, truth=truth)
