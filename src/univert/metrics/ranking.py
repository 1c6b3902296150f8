"""Recall@K and MAP@R: exact, from the ranks of each query's positives.

The rules, the same for both metrics:

- Nearness is Euclidean distance, which for unit vectors orders as cosine similarity does.
- Ties count against us: an item of another product that is as near as a positive is ranked before it. A model
  that maps everything to one point thus scores 0, and results do not depend on the order of the rows.
- Two items tie when x.y - |y|^2 / 2 (for unit vectors: the cosine, less 1/2) differs by at most
  `TIE_TOLERANCE` times the largest squared norm. Float32 products of *identical* rows may differ in the last
  bits with the row's place in a block; the tolerance is some ten times that noise.
- A query never retrieves itself; it is left out as a row, not by distance, so exact copies stay in.
- Products with one image are no queries, but they stay in the gallery. Unlabelled rows are ignored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from univert.core.errors import BadInputError
from univert.metrics.inputs import (
    Codes,
    Labels,
    Vectors,
    check_length,
    check_vectors,
    label_codes,
    power_of_two_scale,
    take_float32,
)

TIE_TOLERANCE = 1e-6


@dataclass(frozen=True, kw_only=True)
class QueryOutcome:
    """What happened to each query; every retrieval figure follows from it, and two models compare pairwise.

    The queries are in the order of their rows, so the outcomes of two models on the same labels line up.

    Attributes:
        rows: (Q,) row of each query in the query vectors.
        products: (Q,) integer code of each query's product.
        rank_of_first_hit: (Q,) rank of the nearest image of the same product, from 1.
        average_precision_at_r: (Q,) in [0, 1]; None when it was not asked for.
    """

    rows: Codes
    products: Codes
    rank_of_first_hit: Codes
    average_precision_at_r: npt.NDArray[np.float64] | None = None

    def __len__(self) -> int:
        """Number of queries."""
        return len(self.rows)

    def hits(self, k: int) -> npt.NDArray[np.bool_]:
        """(Q,) whether the same product is among the k nearest.

        Raises:
            BadInputError: k is below 1.
        """
        if k < 1:
            raise BadInputError(f"k must be at least 1, got {k}; Recall@1 is the strictest there is")
        return self.rank_of_first_hit <= k


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Queries and gallery sorted by product, so that a query's own product is one range of the gallery.

    Attributes:
        queries: (n, D) float32; row `places[i]` is query i. In leave-one-out its rows are the gallery's images, in the
            same order: the gallery itself, or the same images by another model.
        gallery: (m, D) float32.
        rows: (Q,) row of each query in what the caller gave.
        places: (Q,) see `queries`.
        starts: (Q,) first gallery place of the query's product.
        ends: (Q,) the place after the last one.
        leave_one_out: the queries' images are in the gallery, at `places`, and must not find themselves.
    """

    queries: npt.NDArray[np.float32]
    gallery: npt.NDArray[np.float32]
    rows: Codes
    places: Codes
    starts: Codes
    ends: Codes
    leave_one_out: bool


def rank_queries(
    vectors: Vectors,
    labels: Labels,
    *,
    gallery_vectors: Vectors | None = None,
    gallery_labels: Labels | None = None,
    leave_one_out: bool = False,
    with_average_precision: bool = True,
) -> QueryOutcome:
    """Rank every query's positives in the gallery, exactly; the module's text gives the rules.

    Without a gallery it is leave-one-out: every labelled row searches all the others. Memory beyond the
    inputs: a float32 copy of the labelled rows and some 64 MB.

    Args:
        vectors: (N, D) query vectors.
        labels: N products, names or codes; None or negative: unlabelled.
        gallery_vectors: (M, D), searched instead of the queries themselves.
        gallery_labels: M products, of the same kind as `labels`; None with `leave_one_out`.
        leave_one_out: the gallery holds other vectors of the very images that are the queries, row by row, such as
            those of an earlier model: no query retrieves its own image.
        with_average_precision: also rank the positives after the first; takes somewhat longer.

    Raises:
        BadInputError: vectors or labels that do not fit, a gallery without labels or labels without a
            gallery, `leave_one_out` with labels of the gallery or another number of rows, or no query at all.

    Example:
        >>> import numpy as np
        >>> vectors = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.6, 0.4]])
        >>> outcome = rank_queries(vectors, ["cup", "cup", "hat", "hat"])
        >>> outcome.rank_of_first_hit.tolist()
        [1, 1, 1, 3]
    """
    if leave_one_out and gallery_labels is not None:
        raise BadInputError(
            "gallery_labels must be left out with leave_one_out, got some; both galleries are of the same images"
        )
    if (gallery_vectors is None) != (gallery_labels is None) and not leave_one_out:
        raise BadInputError("gallery_vectors and gallery_labels must come together, got only one; pass both or none")
    vectors = check_vectors(vectors)
    check_length(labels, len(vectors), name="labels", of="vectors")
    if gallery_vectors is not None:
        gallery_vectors = check_vectors(gallery_vectors, name="gallery_vectors", size=vectors.shape[1])
    if gallery_vectors is None or gallery_labels is None:
        (codes,) = label_codes(labels)
        if gallery_vectors is not None:
            check_length(gallery_vectors, len(vectors), name="gallery_vectors", of="vectors")
        layout = _leave_one_out(vectors, codes, gallery_vectors)
    else:
        check_length(gallery_labels, len(gallery_vectors), name="gallery_labels", of="gallery_vectors")
        codes, gallery_codes = label_codes(labels, gallery_labels)
        layout = _against_gallery(vectors, codes, gallery_vectors, gallery_codes)
    from univert.metrics.ranks import rank  # here, because it loads PyTorch

    first, average_precision = rank(layout, with_average_precision)
    order = np.argsort(layout.rows)
    rows = layout.rows[order]
    return QueryOutcome(
        rows=rows,
        products=codes[rows],
        rank_of_first_hit=first[order],
        average_precision_at_r=average_precision[order] if with_average_precision else None,
    )


def recall_at_k(
    vectors: Vectors,
    labels: Labels,
    ks: Sequence[int] = (1, 2, 4, 8),
    *,
    gallery_vectors: Vectors | None = None,
    gallery_labels: Labels | None = None,
) -> dict[int, float]:
    """Recall@K: the share of queries with an image of the same product among their K nearest.

    (Proxies, protocol; also called R@K or CMC@K. Not the share of all positives found.) See `rank_queries`.

    Returns:
        for each K the recall, in [0, 1].

    Raises:
        BadInputError: no K or one below 1, or as `rank_queries`.
    """
    check_ks(ks)
    outcome = rank_queries(
        vectors, labels, gallery_vectors=gallery_vectors, gallery_labels=gallery_labels, with_average_precision=False
    )
    return {k: float(outcome.hits(k).mean()) for k in ks}


def map_at_r(
    vectors: Vectors, labels: Labels, *, gallery_vectors: Vectors | None = None, gallery_labels: Labels | None = None
) -> float:
    """MAP@R: the mean over queries of 1/R sum_{i=1..R} precision@i rel(i), R = the query's positives.

    Musgrave et al., "A metric learning reality check" (arXiv 2003.08505), section 3.2. Unlike Recall@1 it
    rewards bringing *all* images of the product forward. See `rank_queries`.

    Returns:
        in [0, 1]; 1 when every query's R nearest are its R positives.

    Raises:
        BadInputError: as `rank_queries`.
    """
    outcome = rank_queries(vectors, labels, gallery_vectors=gallery_vectors, gallery_labels=gallery_labels)
    assert outcome.average_precision_at_r is not None
    return float(outcome.average_precision_at_r.mean())


def check_ks(ks: Sequence[int]) -> None:
    """Refuse an empty list of K and any K below 1."""
    if not isinstance(ks, Sequence) or not ks or not all(isinstance(k, int | np.integer) and k >= 1 for k in ks):
        raise BadInputError(f"ks must hold at least one K, all of them 1 or more, got {ks}; try (1, 2, 4, 8)")


def _leave_one_out(vectors: Vectors, codes: Codes, gallery: Vectors | None) -> Layout:
    order = _by_product(codes)
    grouped = codes[order]
    starts = np.searchsorted(grouped, grouped, side="left")
    ends = np.searchsorted(grouped, grouped, side="right")
    places = np.flatnonzero(ends - starts > 1)
    if not len(places):
        raise BadInputError(
            "labels must hold at least one product with two images, got none, so there is no query; "
            "add images, or evaluate against a separate gallery"
        )
    scale = power_of_two_scale([vectors] if gallery is None else [vectors, gallery])
    queries = take_float32(vectors, order, scale)
    return Layout(
        queries=queries,
        gallery=queries if gallery is None else take_float32(gallery, order, scale),
        rows=order[places],
        places=places,
        starts=starts[places],
        ends=ends[places],
        leave_one_out=True,
    )


def _against_gallery(vectors: Vectors, codes: Codes, gallery: Vectors, gallery_codes: Codes) -> Layout:
    gallery_order = _by_product(gallery_codes)
    grouped = gallery_codes[gallery_order]
    rows = _by_product(codes)
    starts = np.searchsorted(grouped, codes[rows], side="left")
    ends = np.searchsorted(grouped, codes[rows], side="right")
    found = ends > starts
    if not found.any():
        raise BadInputError(
            "labels and gallery_labels must share at least one product, got none, so there is no query; "
            "check that both are named alike"
        )
    scale = power_of_two_scale([vectors, gallery])
    return Layout(
        queries=take_float32(vectors, rows[found], scale),
        gallery=take_float32(gallery, gallery_order, scale),
        rows=rows[found],
        places=np.arange(found.sum()),
        starts=starts[found],
        ends=ends[found],
        leave_one_out=False,
    )


def _by_product(codes: Codes) -> Codes:
    """Rows of the labelled, grouped by product."""
    order = np.argsort(codes, kind="stable")
    return order[np.searchsorted(codes[order], 0) :]
