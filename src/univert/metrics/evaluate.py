"""All figures of one embedding model on one catalogue: merged over the verticals, and within each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from univert.metrics.bootstrap import bootstrap_interval
from univert.metrics.clustering import nmi
from univert.metrics.figures import Evaluation, Interval, Metrics
from univert.metrics.inputs import Codes, Vectors, check_vectors, label_codes
from univert.metrics.per_query import (
    LabelledRows,
    Names,
    average_precision,
    check_one_vertical_each,
    outcome_within,
    pooled,
    query_outcomes,
)
from univert.metrics.ranking import QueryOutcome, check_ks, rank_queries

__all__ = ["Evaluation", "Interval", "Metrics", "evaluate_query_gallery", "evaluate_vectors"]


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
    of ranking are those of `univert.metrics.ranking`.

    Args:
        vectors: (N, D) embeddings.
        products: N product names, None: unlabelled.
        verticals: N vertical names.
        routed: the merged gallery of a query is its own vertical, as if its vertical were known. For
            specialists, each of which has a space of its own: distances between the spaces mean nothing.
            Merged NMI is None then.
        ks: the K of Recall@K.
        with_nmi: also cluster; by far the slowest figure when there are many products.
        resamples: of the bootstrap over products.
        seed: of the bootstrap and the clustering.

    Raises:
        BadInputError: arguments that do not fit, a product in two verticals, or no query in any vertical.
    """
    check_ks(ks)
    outcomes = query_outcomes(vectors, products, verticals, routed=routed)
    settings = _Settings(ks=ks, resamples=resamples, seed=seed)
    nmis: dict[str, float | None] = dict.fromkeys(outcomes.rows)
    if with_nmi:
        nmis = {name: _nmi(vectors[rows], outcomes.codes[rows], seed) for name, rows in outcomes.rows.items()}
    merged_nmi = _nmi(vectors, outcomes.codes, seed) if with_nmi and not routed else None
    return _evaluation(settings, outcomes.merged, merged_nmi, outcomes.verticals, nmis)


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
        query_products: N product names, None: unlabelled.
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
    queries = LabelledRows.of(
        query_vectors, query_products, query_verticals, names=("query_vectors", "query_products", "query_verticals")
    )
    gallery = LabelledRows.of(
        gallery_vectors,
        gallery_products,
        gallery_verticals,
        names=("gallery_vectors", "gallery_products", "gallery_verticals"),
    )
    codes, gallery_codes = label_codes(queries.products, gallery.products)
    check_one_vertical_each([(queries, codes), (gallery, gallery_codes)])
    in_gallery = gallery.by_vertical()
    outcomes: dict[str, QueryOutcome | None] = {}
    for vertical, rows in queries.by_vertical().items():
        candidates = in_gallery.get(vertical, np.zeros(0, dtype=np.int64))
        outcomes[vertical] = outcome_within(
            query_vectors[rows], codes[rows], rows, (gallery_vectors[candidates], gallery_codes[candidates])
        )
    merged_outcome = pooled(outcomes)
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
        name: None if outcome is None else _metrics(settings, outcome, nmis[name]) for name, outcome in outcomes.items()
    }
    figures = [metrics.figures() for metrics in verticals.values() if metrics is not None]
    names = dict.fromkeys(name for values in figures for name in values)
    return Evaluation(
        merged=_metrics(settings, merged, merged_nmi),
        verticals=verticals,
        mean_within={name: float(np.mean([values[name] for values in figures if name in values])) for name in names},
    )


def _metrics(settings: _Settings, outcome: QueryOutcome, clustering: float | None) -> Metrics:
    columns = [outcome.hits(k).astype(np.float64) for k in settings.ks] + [average_precision(outcome)]
    values = np.stack(columns, axis=1)
    means = values.mean(axis=0)
    products = len(np.unique(outcome.products))
    ends: list[tuple[float | None, float | None]] = [(None, None)] * len(means)
    if products > 1:  # one product alone says nothing about how products differ
        low, high = bootstrap_interval(values, outcome.products, resamples=settings.resamples, seed=settings.seed)
        ends = list(zip(low.tolist(), high.tolist(), strict=True))
    intervals = [Interval(float(mean), *end) for mean, end in zip(means, ends, strict=True)]
    return Metrics(
        recall_at=dict(zip(settings.ks, intervals[:-1], strict=True)),
        map_at_r=intervals[-1],
        nmi=None if clustering is None else Interval(clustering),
        queries=len(outcome),
        products=products,
    )
