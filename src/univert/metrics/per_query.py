"""What happened to every query: within its vertical, and in the gallery merged over all verticals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from univert.core.errors import BadInputError
from univert.metrics.inputs import Asking, Codes, Vectors, check_length, check_vectors, has_queries, label_codes
from univert.metrics.ranking import QueryOutcome, rank_queries

Names = Sequence[str | None] | Sequence[int] | npt.NDArray[Any]
"""Products or verticals of rows; None or, for codes, negative: unlabelled."""


@dataclass(frozen=True, kw_only=True)
class Outcomes:
    """One model's queries, each in all verticals (if routed, in its own) and in its own (None: no query there).

    Beside them the rows of each vertical, the product code (N,) of each row, -1 where unlabelled, and of the `merged`
    queries those of brands that training never had; None without any.
    """

    merged: QueryOutcome
    verticals: dict[str, QueryOutcome | None]
    rows: dict[str, Codes]
    codes: Codes
    unseen_brands: QueryOutcome | None = None


def query_outcomes(
    vectors: Vectors,
    products: Names,
    verticals: Names,
    *,
    routed: bool = False,
    stored: Vectors | None = None,
    queries: Asking = None,
    unseen_brands: npt.NDArray[np.bool_] | None = None,
) -> Outcomes:
    """Every labelled image searches all the others, or the `queries` all that are none; see `univert.metrics.ranking`.

    If `routed`, the merged gallery of a query is its own vertical. `stored` are other vectors of the same images, such
    as those in an index: they are searched instead, and no image finds its own. `unseen_brands` (N,) are the images
    of brands that training never had.

    Raises:
        BadInputError: arguments that do not fit, a product in two verticals, or no query in any vertical.
    """
    vectors = check_vectors(vectors)
    if stored is not None:
        stored = check_vectors(stored, name="stored", size=vectors.shape[1])
        check_length(stored, len(vectors), name="stored", of="vectors")
    if queries is not None:
        check_length(queries, len(vectors), name="queries", of="vectors")
    if unseen_brands is not None:
        check_length(unseen_brands, len(vectors), name="unseen_brands", of="vectors")
    codes, rows = _rows_by_vertical(vectors, products, verticals)

    def among(here: Codes) -> QueryOutcome | None:
        own = None if stored is None else stored[here]
        return outcome_within(vectors[here], codes[here], here, own, None if queries is None else queries[here])

    within = {name: among(here) for name, here in rows.items()}
    merged = pooled(within)
    if not routed:
        everywhere = among(np.arange(len(codes)))
        assert everywhere is not None
        merged = everywhere
    unseen = None if unseen_brands is None else kept_rows(merged, unseen_brands)
    return Outcomes(merged=merged, verticals=within, rows=rows, codes=codes, unseen_brands=unseen)


def _rows_by_vertical(vectors: Vectors, products: Names, verticals: Names) -> tuple[Codes, dict[str, Codes]]:
    """Product codes, and the rows of each vertical in order of name."""
    check_length(products, len(vectors), name="products", of="vectors")
    check_length(verticals, len(vectors), name="verticals", of="vectors")
    bare = next((row for row, vertical in enumerate(verticals) if not isinstance(vertical, str)), None)
    if bare is not None:
        raise BadInputError(
            f"verticals must name a vertical for every row, got {verticals[bare]!r} in row {bare}; "
            "give the row a vertical or leave it out"
        )
    (codes,) = label_codes(products)
    home: dict[int, str] = {}
    rows: dict[str, list[int]] = {str(name): [] for name in sorted(set(verticals))}
    for row, (code, vertical) in enumerate(zip(codes.tolist(), verticals, strict=True)):
        rows[vertical].append(row)
        if code >= 0 and home.setdefault(code, vertical) != vertical:
            raise BadInputError(
                f"products must lie in one vertical each, got {products[row]!r} in {str(home[code])!r} "
                f"and {str(vertical)!r}; rename one of them"
            )
    return codes, {name: np.asarray(here) for name, here in rows.items()}


def outcome_within(
    vectors: Vectors, codes: Codes, rows: Codes, stored: Vectors | None = None, queries: Asking = None
) -> QueryOutcome | None:
    """What `query_outcomes` gives for some rows alone, which keep their numbers; None where nothing can be a query."""
    if not has_queries(codes, queries):
        return None
    if queries is None:
        outcome = rank_queries(vectors, codes, gallery_vectors=stored, leave_one_out=True)
        return replace(outcome, rows=rows[outcome.rows])
    gallery = (vectors if stored is None else stored)[~queries]
    outcome = rank_queries(vectors[queries], codes[queries], gallery_vectors=gallery, gallery_labels=codes[~queries])
    return replace(outcome, rows=rows[queries][outcome.rows])


def kept_rows(outcome: QueryOutcome, wanted: npt.NDArray[np.bool_]) -> QueryOutcome | None:
    """The outcome of those queries whose rows are wanted, in the same galleries; None without any."""
    kept = wanted[outcome.rows]
    if not kept.any():
        return None
    return QueryOutcome(
        rows=outcome.rows[kept],
        products=outcome.products[kept],
        rank_of_first_hit=outcome.rank_of_first_hit[kept],
        average_precision_at_r=average_precision(outcome)[kept],
    )


def pooled(outcomes: dict[str, QueryOutcome | None]) -> QueryOutcome:
    """All verticals' outcomes as one, in the order of the rows."""
    there = [outcome for outcome in outcomes.values() if outcome is not None]
    if not there:
        raise BadInputError(
            "products must hold at least one query in some vertical, got none; "
            "add images so that a product has two, or one in the gallery"
        )
    rows = np.concatenate([outcome.rows for outcome in there])
    order = np.argsort(rows)
    return QueryOutcome(
        rows=rows[order],
        products=np.concatenate([outcome.products for outcome in there])[order],
        rank_of_first_hit=np.concatenate([outcome.rank_of_first_hit for outcome in there])[order],
        average_precision_at_r=np.concatenate([average_precision(outcome) for outcome in there])[order],
    )


def average_precision(outcome: QueryOutcome) -> npt.NDArray[np.float64]:
    """Average precision at R of each query, which must have been asked for."""
    assert outcome.average_precision_at_r is not None
    return outcome.average_precision_at_r
