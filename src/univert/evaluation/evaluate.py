"""All figures of one embedding model on one catalogue: merged over the verticals, and within each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from univert.core.errors import BadInputError
from univert.evaluation.bootstrap import bootstrap_interval
from univert.evaluation.clustering import nmi
from univert.evaluation.figures import Evaluation, Interval, Metrics
from univert.evaluation.inputs import Codes, Vectors, check_length, check_vectors, label_codes
from univert.evaluation.ranking import QueryOutcome, check_ks, rank_queries

__all__ = ["Evaluation", "Interval", "Metrics", "evaluate_query_gallery", "evaluate_vectors"]

Names = Sequence[str | None] | npt.NDArray[Any]


def evaluate_vectors(
    vectors: Vectors,
    products: Names,
    verticals: Names,
    *,
    routed: bool = False,
    ks: Sequence[int] = (1, 2, 4, 8),
    with_nmi: bool = True,
    resamples: int = 1000,
    seed: int = 0,
) -> Evaluation:
    """Evaluate leave-one-out: every labelled image searches all the others, and a hit is the right product.

    Products with one image are no queries but stay in the gallery; unlabelled images are ignored. The rules
    of ranking are those of `univert.evaluation.ranking`.

    Args:
        vectors: (N, D) embeddings.
        products: N product names, null: unlabelled.
        verticals: N vertical names.
        routed: the merged gallery of a query is its own vertical, as if its vertical were known. For
            specialists, each of which has a space of its own: distances between the spaces mean nothing.
            Merged NMI is null then.
        ks: the K of Recall@K.
        with_nmi: also cluster; by far the slowest figure when there are many products.
        resamples: of the bootstrap over products.
        seed: of the bootstrap and the clustering.

    Raises:
        BadInputError: arguments that do not fit, a product in two verticals, or no query in any vertical.
    """
    check_ks(ks)
    vectors = check_vectors(vectors)
    table = _Rows.of(vectors, products, verticals, names=("vectors", "products", "verticals"))
    (codes,) = label_codes(table.products)
    _check_one_vertical_each([(table, codes)])
    settings = _Settings(ks=ks, resamples=resamples, seed=seed)
    outcomes = {
        vertical: _within(vectors[rows], codes[rows], rows) for vertical, rows in table.by_vertical().items()
    }
    pooled = _pool(outcomes)
    merged_outcome = pooled if routed else rank_queries(vectors, codes)
    nmis: dict[str, float | None] = dict.fromkeys(outcomes)
    if with_nmi:
        nmis = {name: _nmi(vectors[rows], codes[rows], seed) for name, rows in table.by_vertical().items()}
    merged_nmi = _nmi(vectors, codes, seed) if with_nmi and not routed else None
    return _evaluation(settings, merged_outcome, merged_nmi, outcomes, nmis)


def evaluate_query_gallery(
    query_vectors: Vectors,
    query_products: Names,
    query_verticals: Names,
    gallery_vectors: Vectors,
    gallery_products: Names,
    gallery_verticals: Names,
    *,
    routed: bool = False,
    ks: Sequence[int] = (1, 2, 4, 8),
    resamples: int = 1000,
    seed: int = 0,
) -> Evaluation:
    """Evaluate queries against a separate gallery (In-shop's protocol), otherwise as `evaluate_vectors`.

    Images whose product is not in the gallery are no queries. There is no NMI: it is a figure of one set.

    Args:
        query_vectors: (N, D) embeddings.
        query_products: N product names, null: unlabelled.
        query_verticals: N vertical names.
        gallery_vectors: (M, D).
        gallery_products: M.
        gallery_verticals: M.
        routed: as in `evaluate_vectors`.
        ks: the K of Recall@K.
        resamples: of the bootstrap over products.
        seed: of the bootstrap.

    Raises:
        BadInputError: arguments that do not fit, a product in two verticals, or no query in any vertical.
    """
    check_ks(ks)
    query_vectors = check_vectors(query_vectors, name="query_vectors")
    gallery_vectors = check_vectors(gallery_vectors, name="gallery_vectors", size=query_vectors.shape[1])
    queries = _Rows.of(
        query_vectors,
        query_products,
        query_verticals,
        names=("query_vectors", "query_products", "query_verticals"),
    )
    gallery = _Rows.of(
        gallery_vectors,
        gallery_products,
        gallery_verticals,
        names=("gallery_vectors", "gallery_products", "gallery_verticals"),
    )
    codes, gallery_codes = label_codes(queries.products, gallery.products)
    _check_one_vertical_each([(queries, codes), (gallery, gallery_codes)])
    in_gallery = gallery.by_vertical()
    outcomes: dict[str, QueryOutcome | None] = {}
    for vertical, rows in queries.by_vertical().items():
        candidates = in_gallery.get(vertical, np.zeros(0, dtype=np.int64))
        outcomes[vertical] = _within(
            query_vectors[rows], codes[rows], rows, (gallery_vectors[candidates], gallery_codes[candidates])
        )
    merged_outcome = _pool(outcomes)
    if not routed:
        merged_outcome = rank_queries(
            query_vectors, codes, gallery_vectors=gallery_vectors, gallery_labels=gallery_codes
        )
    settings = _Settings(ks=ks, resamples=resamples, seed=seed)
    return _evaluation(settings, merged_outcome, None, outcomes, dict.fromkeys(outcomes))


@dataclass(frozen=True, kw_only=True)
class _Settings:
    ks: Sequence[int]
    resamples: int
    seed: int


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """The labels of one set of rows, checked."""

    products: list[str | None]
    verticals: list[str]

    @classmethod
    def of(cls, vectors: Vectors, products: Names, verticals: Names, *, names: tuple[str, str, str]) -> _Rows:
        check_length(products, len(vectors), name=names[1], of=names[0])
        check_length(verticals, len(vectors), name=names[2], of=names[0])
        bare = next((row for row, vertical in enumerate(verticals) if not isinstance(vertical, str)), None)
        if bare is not None:
            raise BadInputError(
                f"{names[2]} must name a vertical for every row, got {verticals[bare]!r} in row {bare}; "
                "give the row a vertical or leave it out"
            )
        return cls(products=list(products), verticals=[str(vertical) for vertical in verticals])

    def by_vertical(self) -> dict[str, Codes]:
        (codes,) = label_codes(self.verticals)
        return {name: np.flatnonzero(codes == code) for code, name in enumerate(sorted(set(self.verticals)))}


def _check_one_vertical_each(tables: list[tuple[_Rows, Codes]]) -> None:
    home: dict[int, str] = {}
    for table, codes in tables:
        for row, (code, vertical) in enumerate(zip(codes.tolist(), table.verticals, strict=True)):
            if code >= 0 and home.setdefault(code, vertical) != vertical:
                raise BadInputError(
                    f"products must lie in one vertical each, got {table.products[row]!r} in {home[code]!r} "
                    f"and {vertical!r}; rename one of them"
                )


def _within(
    vectors: Vectors, codes: Codes, rows: Codes, gallery: tuple[Vectors, Codes] | None = None
) -> QueryOutcome | None:
    """The outcome of one vertical, its rows counted as in the whole, or null where nothing can be a query."""
    if gallery is None:
        _, images = np.unique(codes[codes >= 0], return_counts=True)
        if not (images > 1).any():
            return None
        outcome = rank_queries(vectors, codes)
    else:
        if not np.isin(codes[codes >= 0], gallery[1]).any():
            return None
        outcome = rank_queries(vectors, codes, gallery_vectors=gallery[0], gallery_labels=gallery[1])
    return QueryOutcome(
        rows=rows[outcome.rows],
        products=outcome.products,
        rank_of_first_hit=outcome.rank_of_first_hit,
        average_precision_at_r=outcome.average_precision_at_r,
    )


def _pool(outcomes: dict[str, QueryOutcome | None]) -> QueryOutcome:
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
        average_precision_at_r=np.concatenate([_precision(outcome) for outcome in there])[order],
    )


def _precision(outcome: QueryOutcome) -> npt.NDArray[np.float64]:
    assert outcome.average_precision_at_r is not None
    return outcome.average_precision_at_r


def _nmi(vectors: Vectors, codes: Codes, seed: int) -> float | None:
    return nmi(vectors, codes, seed=seed) if len(np.unique(codes[codes >= 0])) > 1 else None


def _evaluation(
    settings: _Settings,
    merged: QueryOutcome,
    merged_nmi: float | None,
    outcomes: dict[str, QueryOutcome | None],
    nmis: dict[str, float | None],
) -> Evaluation:
    verticals = {
        name: None if outcome is None else _metrics(settings, outcome, nmis[name])
        for name, outcome in outcomes.items()
    }
    figures = [metrics.figures() for metrics in verticals.values() if metrics is not None]
    names = dict.fromkeys(name for values in figures for name in values)
    return Evaluation(
        merged=_metrics(settings, merged, merged_nmi),
        verticals=verticals,
        mean_within={
            name: float(np.mean([values[name] for values in figures if name in values])) for name in names
        },
    )


def _metrics(settings: _Settings, outcome: QueryOutcome, clustering: float | None) -> Metrics:
    columns = [outcome.hits(k).astype(np.float64) for k in settings.ks] + [_precision(outcome)]
    values = np.stack(columns, axis=1)
    means = values.mean(axis=0)
    products = len(np.unique(outcome.products))
    ends: list[tuple[float | None, float | None]] = [(None, None)] * len(means)
    if products > 1:  # one product alone says nothing about how products differ
        low, high = bootstrap_interval(
            values, outcome.products, resamples=settings.resamples, seed=settings.seed
        )
        ends = list(zip(low.tolist(), high.tolist(), strict=True))
    intervals = [Interval(float(mean), *end) for mean, end in zip(means, ends, strict=True)]
    return Metrics(
        recall_at=dict(zip(settings.ks, intervals[:-1], strict=True)),
        map_at_r=intervals[-1],
        nmi=None if clustering is None else Interval(clustering),
        queries=len(outcome),
        products=products,
    )
