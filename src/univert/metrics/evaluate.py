"""All figures of one embedding model on one catalogue: merged over the verticals, and within each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from univert.metrics.bootstrap import bootstrap_interval
from univert.metrics.clustering import nmi
from univert.metrics.inputs import Asking, Codes, Vectors, check_vectors
from univert.metrics.per_query import Names, Outcomes, average_precision, query_outcomes
from univert.metrics.ranking import QueryOutcome, check_ks


@dataclass(frozen=True)
class Interval:
    """A figure with the ends of its 95% interval over products; both ends are None where there is none."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """What retrieval and clustering give on one gallery.

    Attributes:
        recall_at: for each K the share of queries with an image of the same product among the K nearest.
        map_at_r: mean average precision at R.
        nmi: normalised mutual information; None where it was not asked for or makes no sense.
        queries: number of queries.
        products: number of products that the queries show.
    """

    recall_at: dict[int, Interval]
    map_at_r: Interval
    nmi: Interval | None
    queries: int
    products: int

    def figures(self) -> dict[str, float]:
        """The plain values by name: `recall_at_1`, ..., `map_at_r`, and `nmi` where there is one."""
        values = {f"recall_at_{k}": interval.value for k, interval in self.recall_at.items()}
        values["map_at_r"] = self.map_at_r.value
        if self.nmi is not None:
            values["nmi"] = self.nmi.value
        return values


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One model's figures.

    Attributes:
        merged: every query searches all verticals at once (or, if routed, its own).
        verticals: every query searches its own vertical; None for a vertical without any query.
        mean_within: the plain mean over the verticals of each figure, by the names of `Metrics.figures`.
        unseen_brands: the queries of brands that training never had, in the gallery of `merged`; None without any.
    """

    merged: Metrics
    verticals: dict[str, Metrics | None]
    mean_within: dict[str, float]
    unseen_brands: Metrics | None = None


def evaluate_vectors(
    vectors: Vectors,
    products: Names,
    verticals: Names,
    *,
    queries: Asking = None,
    routed: bool = False,
    unseen_brands: npt.NDArray[np.bool_] | None = None,
    ks: Sequence[int] = (1, 2, 4, 8),
    resamples: int = 1000,
    seed: int = 0,
) -> Evaluation:
    """Evaluate retrieval: labelled images search others, and a hit is the right product.

    Without `queries` it is leave-one-out: each image searches all the others. Images whose product the gallery lacks
    are no queries; unlabelled images are ignored. The rules of ranking are those of `univert.metrics.ranking`.

    Args:
        vectors: (N, D) embeddings.
        products: N product names, None: unlabelled.
        verticals: N vertical names.
        routed: the merged gallery of a query is its own vertical, as if its vertical were known. For
            specialists, each of which has a space of its own: distances between the spaces mean nothing.
            Merged NMI is None then.
        unseen_brands: (N,) true for images whose brand training never had: those of them that are queries are
            measured by themselves, too.
        queries: (N,) true for images that search, false for those that are searched, as where photos are to find
            product pictures (or In-shop's protocol). There is no NMI then: it is a figure of one set.
        ks: the K of Recall@K.
        resamples: of the bootstrap over products.
        seed: of the bootstrap and the clustering.

    Raises:
        BadInputError: arguments that do not fit, a product in two verticals, or no query in any vertical.
    """
    check_ks(ks)
    vectors = check_vectors(vectors)
    outcomes = query_outcomes(vectors, products, verticals, routed=routed, queries=queries, unseen_brands=unseen_brands)
    nmis: dict[str | None, float | None] = {}
    if queries is None:
        nmis = {name: _nmi(vectors[rows], outcomes.codes[rows], seed) for name, rows in outcomes.rows.items()}
        if not routed:
            nmis[None] = _nmi(vectors, outcomes.codes, seed)
    return _evaluation(outcomes, nmis, ks, resamples, seed)


def _nmi(vectors: Vectors, codes: Codes, seed: int) -> float | None:
    return nmi(vectors, codes, seed=seed) if len(np.unique(codes[codes >= 0])) > 1 else None


def _evaluation(
    outcomes: Outcomes,
    nmis: Mapping[str | None, float | None],  # None: of all verticals together
    ks: Sequence[int],
    resamples: int,
    seed: int,
) -> Evaluation:
    verticals = {
        name: None if outcome is None else _metrics(outcome, nmis.get(name), ks, resamples, seed)
        for name, outcome in outcomes.verticals.items()
    }
    unseen = outcomes.unseen_brands
    figures = [metrics.figures() for metrics in verticals.values() if metrics is not None]
    names = dict.fromkeys(name for values in figures for name in values)
    return Evaluation(
        merged=_metrics(outcomes.merged, nmis.get(None), ks, resamples, seed),
        verticals=verticals,
        mean_within={name: float(np.mean([values[name] for values in figures if name in values])) for name in names},
        unseen_brands=None if unseen is None else _metrics(unseen, None, ks, resamples, seed),
    )


def _metrics(outcome: QueryOutcome, clustering: float | None, ks: Sequence[int], resamples: int, seed: int) -> Metrics:
    columns = [outcome.hits(k).astype(np.float64) for k in ks] + [average_precision(outcome)]
    values = np.stack(columns, axis=1)
    products = len(np.unique(outcome.products))
    intervals = [Interval(float(mean)) for mean in values.mean(axis=0)]
    if products > 1:  # one product alone says nothing about how products differ
        low, high = bootstrap_interval(values, outcome.products, resamples=resamples, seed=seed)
        ends = zip(intervals, low.tolist(), high.tolist(), strict=True)
        intervals = [Interval(interval.value, *both) for interval, *both in ends]
    return Metrics(
        recall_at=dict(zip(ks, intervals[:-1], strict=True)),
        map_at_r=intervals[-1],
        nmi=None if clustering is None else Interval(clustering),
        queries=len(outcome),
        products=products,
    )
