"""Strong negatives: the semi-hard negatives of every anchor, searched for in the whole catalogue through an index.

`mine_strong_negatives` gives a table of them; see `univert.training.remining` for what mines while a model learns.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float, Int64

from univert.core.errors import BadInputError
from univert.core.terminal import progress_bar
from univert.data.samplers import step_rng
from univert.data.strong_negatives import MiningStatistics, StrongNegatives
from univert.search.index import Index
from univert.search.query import check_unit_vectors

Neighbours = Callable[[Int64[np.ndarray, "Q"], int], Int64[np.ndarray, "Q K"]]
"""The `k` images nearest to each of some images within its vertical (itself may be among them); -1 where there are
fewer."""
Protect = Callable[[np.ndarray, np.ndarray], Bool[np.ndarray, "..."]]
"""Whether images are near-duplicates of others, given their positions: `univert.data.duplicates.NearDuplicates`."""

_ROWS_AT_ONCE = 1024
_NUMBERS_AT_ONCE = 1 << 22
_ROUNDING = 1e-4
"""How far a distance in single precision may be off."""


def mine_strong_negatives(
    vectors: Float[np.ndarray, "N D"],
    products: Int64[np.ndarray, "N"],
    verticals: Int64[np.ndarray, "N"] | None = None,
    *,
    margin: float = 0.2,
    k: int = 8,
    neighbours: int = 100,
    positives: int = 8,
    protect: Protect | None = None,
    search: Neighbours | None = None,
    seed: int = 0,
) -> StrongNegatives:
    """For each anchor-positive pair the nearest n of the whole catalogue with D(a,p) < D(a,n) < D(a,p) + margin.

    A negative is an image of another product of the anchor's vertical; D is the squared Euclidean distance. The index
    proposes neighbours, and their distances are computed anew. Where a pair's positive lies beyond them, its anchor is
    compared with all images of the vertical: no pair is lost. Memory is O(N x neighbours), never N x N.

    Where images under two products are near-duplicates, the two products are most likely one, so no image of either
    serves as a negative of the other. Anchors are compared with all their neighbours, positives with the negatives of
    their pair. The result lists the images.

    Args:
        vectors: unit vectors of all training images, by the model as it stands.
        products: the product code of each; -1 (unlabelled) takes no part, for it might be of any product.
        verticals: the code of each image's vertical; None: all share one.
        margin: width of the window, in squared distance; that of the loss.
        k: negatives a pair gets at most.
        neighbours: images nearest to an anchor that are looked at; see `MiningStatistics.pairs_cut_short`.
        positives: pairs an anchor gets at most, drawn so that each image is a positive equally often: a product
            of a thousand images does not make a million pairs.
        protect: tells near-duplicates among the rows; None protects from nothing.
        search: finds the neighbours; None builds a LanceDB index for the time being, see `index_neighbours`.
        seed: of the draw of positives.

    Raises:
        BadInputError: lengths that differ, vectors that are not of unit length, or a limit that is not positive.

    Source: the window is FaceNet's (arXiv 1503.03832, section 3.2), there within a batch.

    Example:
        >>> vectors = np.array([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8], [0.0, 1.0]])
        >>> mined = mine_strong_negatives(vectors, np.array([0, 0, 1, 2]), margin=0.5)
        >>> mined.anchors.tolist(), mined.positives.tolist(), mined.negatives[:, 0].tolist()
        ([0, 1], [1, 0], [2, 3])
    """
    verticals = np.zeros(len(products), np.int64) if verticals is None else verticals
    if not len(vectors) == len(products) == len(verticals):
        counts = f"{len(vectors)}, {len(products)} and {len(verticals)}"
        raise BadInputError(f"vectors, products and verticals must be equally many, got {counts}")
    for name, limit in {"margin": margin, "k": k, "neighbours": neighbours, "positives": positives}.items():
        if not limit > 0:
            raise BadInputError(f"{name} must be positive, got {limit}")
    check_unit_vectors(vectors[products >= 0], vectors.shape[-1])
    pairs = _pairs(products, positives, seed)
    if not len(pairs):
        return StrongNegatives.none()
    with tempfile.TemporaryDirectory() as folder:
        if search is None:
            search = index_neighbours(Path(folder) / "index", vectors, verticals, products >= 0)
        mining = _Mining(vectors, products, verticals, pairs, search, neighbours)
    mining.look_further(vectors, verticals, margin)
    twins = mining.twins(protect, margin) if protect else np.empty((0, 2), np.int64)
    return mining.table(margin, k, twins)


def index_neighbours(
    folder: Path, vectors: Float[np.ndarray, "N D"], verticals: Int64[np.ndarray, "N"], allowed: Bool[np.ndarray, "N"]
) -> Neighbours:
    """Neighbours among the vectors that are allowed, through an index that is made in a folder."""
    ids, names = [f"{row:012d}" for row in range(len(vectors))], verticals.astype(str)  # so that ties go by row
    columns = pa.table({"id": ids, "vertical": names}).take(np.flatnonzero(allowed))
    with Index.create(folder, size=vectors.shape[1], model_fingerprint="mining") as writer:
        writer.upsert(vectors[allowed], columns)
        writer.publish()
    index = Index.open(folder)

    def near(rows: Int64[np.ndarray, "Q"], k: int) -> Int64[np.ndarray, "Q K"]:
        found = np.full((len(rows), k), -1, np.int64)
        for name in np.unique(names[rows]):
            here = np.flatnonzero(names[rows] == name)
            where = {"vertical": str(name)}
            answers = index.search_many(vectors[rows[here]], k, where=where, model_fingerprint="mining")
            for row, hits in zip(here, answers, strict=True):
                found[row, : len(hits)] = [int(hit.id) for hit in hits]
        return found

    return near


class _Mining:
    """The neighbours of all anchors (shapes: N images, A anchors, K neighbours, P anchor-positive pairs).

    Attributes:
        anchors: (A,) sorted.
        near: (A, K) images near each anchor, nearest first, -1 where there are fewer.
        distances: (A, K) theirs, infinite where there is none.
        complete: (A,) whether these are all images of the anchor's vertical.
        pairs: (P, 2) anchor and positive, sorted.
        gaps: (P,) distance of the two.
        anchor_row: (P,) of each pair, where its anchor stands in `anchors`.
        further: of pairs whose window begins beyond `near`, a chunk at a time: the pairs, the images that may lie in
            the window, nearest first, and their distances.
    """

    def __init__(
        self,
        vectors: Float[np.ndarray, "N D"],
        products: Int64[np.ndarray, "N"],
        verticals: Int64[np.ndarray, "N"],
        pairs: Int64[np.ndarray, "P 2"],
        search: Neighbours,
        neighbours: int,
    ) -> None:
        labelled = self.labelled = products >= 0
        _, kind, count = np.unique(verticals[labelled], return_inverse=True, return_counts=True)
        in_vertical = np.zeros(len(products), np.int64)
        in_vertical[labelled] = count[kind]
        self.products = np.unique(products, return_inverse=True)[1]
        self.pairs, self.gaps = pairs, _distances(vectors, pairs[:, :1], pairs[:, 1:])[:, 0]
        self.anchors, self.anchor_row = np.unique(pairs[:, 0], return_inverse=True)
        size = min(neighbours + 1, len(products))  # an anchor finds itself, too
        self.near = np.empty((len(self.anchors), size), np.int64)
        self.distances = np.empty((len(self.anchors), size))
        with progress_bar("mining negatives", len(self.anchors)) as advance:
            for rows in _chunks(len(self.anchors)):
                anchor = self.anchors[rows, None]
                found = search(self.anchors[rows], size)
                far = _distances(vectors, anchor, found)
                far[(found < 0) | (found == anchor) | ~labelled[found]] = np.inf
                order = np.lexsort((found, far), axis=1)
                self.near[rows] = np.take_along_axis(found, order, axis=1)
                self.distances[rows] = np.take_along_axis(far, order, axis=1)
                advance(len(found))
        self.complete = np.isfinite(self.distances).sum(1) >= in_vertical[self.anchors] - 1
        self.last = np.where(np.isfinite(self.distances), self.distances, -np.inf).max(1)
        self.further: list[tuple[Int64[np.ndarray, "p"], Int64[np.ndarray, "p K"], Float[np.ndarray, "p K"]]] = []

    def look_further(self, vectors: Float[np.ndarray, "N D"], verticals: Int64[np.ndarray, "N"], margin: float) -> None:
        """Compare the anchors of pairs that the neighbours leave without a negative with all images of the vertical."""
        empty = np.zeros(len(self.pairs), bool)
        for rows, _, in_window in self._windows(margin):
            empty[rows] = ~in_window.any(1) & self._goes_on(rows, margin)
        size, labelled = self.near.shape[1], self.labelled
        for vertical in np.unique(verticals[self.pairs[empty, 0]]):
            others = np.flatnonzero(labelled & (verticals == vertical))
            lost = np.flatnonzero(empty & (verticals[self.pairs[:, 0]] == vertical))
            step = max(1, _NUMBERS_AT_ONCE // len(others))
            for start in range(0, len(lost), step):
                rows = lost[start : start + step]
                anchor, gap = self.pairs[rows, 0], self.gaps[rows, None]
                far = 2 - 2 * (vectors[anchor] @ vectors[others].T)
                outside = (far < gap - _ROUNDING) | (far > gap + margin + _ROUNDING)
                far[outside | (self.products[others] == self.products[anchor, None])] = np.inf
                some = np.isfinite(far).any(1)  # the windows of most may be empty
                rows, anchor, far = rows[some], anchor[some], far[some]
                nearest = np.argpartition(far, min(size, len(others)) - 1, axis=1)[:, :size]
                near = others[nearest]
                exact = _distances(vectors, anchor[:, None], near)
                exact[~np.isfinite(np.take_along_axis(far, nearest, axis=1))] = np.inf
                order = np.lexsort((near, exact), axis=1)
                sort = partial(np.take_along_axis, indices=order, axis=1)
                self.further.append((rows, sort(near), sort(exact)))

    def twins(self, same: Protect, margin: float) -> Int64[np.ndarray, "M 2"]:
        """Near-duplicates under different products: of anchors among their neighbours, of positives in the window."""
        found = [
            _matches(same, self.anchors[rows], self.near[rows], self._is_negative(rows))
            for rows in _chunks(len(self.anchors))
        ]
        for rows, near, in_window in self._windows(margin):
            found.append(_matches(same, self.pairs[rows, 1], near, in_window))
        return np.unique(np.sort(np.concatenate(found), axis=1), axis=0)

    def table(self, margin: float, k: int, twins: Int64[np.ndarray, "M 2"]) -> StrongNegatives:
        """The nearest `k` negatives in each pair's window, without those of products that share a picture."""
        barred = np.unique(_codes(*self.products[twins].T))
        kept, negatives, excluded, cut_short = [], [], 0, 0
        for rows, near, in_window in self._windows(margin):
            if len(barred):
                own, other = self.products[self.pairs[rows, 0], None], self.products[near]
                wrong = in_window & np.isin(_codes(own, other), barred)
                excluded += int(wrong.sum())
                in_window &= ~wrong
            first = np.argsort(~in_window, axis=1, kind="stable")[:, :k]
            chosen = np.where(np.take_along_axis(in_window, first, axis=1), np.take_along_axis(near, first, axis=1), -1)
            some = chosen[:, 0] >= 0
            short = some & self._goes_on(rows, margin) & (in_window.sum(1) < k)
            cut_short += int(short.sum())
            kept.append(rows[some])
            negatives.append(chosen[some])
        pair = np.concatenate(kept)
        order = np.argsort(pair)
        pair = pair[order]
        return StrongNegatives(
            anchors=self.pairs[pair, 0],
            positives=self.pairs[pair, 1],
            negatives=np.concatenate(negatives)[order],
            protected=twins,
            statistics=MiningStatistics(
                anchors=len(self.anchors),
                anchors_with_negatives=len(np.unique(self.anchor_row[pair])),
                pairs=len(self.pairs),
                pairs_with_negatives=len(pair),
                pairs_cut_short=cut_short,
                protected_pairs=len(twins),
                protected_products=len(barred),
                excluded=excluded,
            ),
        )

    def _windows(
        self, margin: float
    ) -> Iterator[tuple[Int64[np.ndarray, "p"], Int64[np.ndarray, "p K"], Bool[np.ndarray, "p K"]]]:
        """Pairs a chunk at a time, with images near their anchors, and which are semi-hard negatives of the pair."""
        for some in _chunks(len(self.pairs)):
            rows, anchor, gap = np.arange(some.start, some.stop), self.anchor_row[some], self.gaps[some, None]
            far = self.distances[anchor]
            yield rows, self.near[anchor], self._is_negative(anchor) & (gap < far) & (far < gap + margin)
        for rows, near, far in self.further:
            gap = self.gaps[rows, None]
            yield rows, near, (gap < far) & (far < gap + margin)

    def _goes_on(self, rows: Int64[np.ndarray, "p"], margin: float) -> Bool[np.ndarray, "p"]:
        """Whether the window of a pair goes on where the neighbours of its anchor end."""
        anchor = self.anchor_row[rows]
        return np.asarray(~self.complete[anchor] & (self.last[anchor] < self.gaps[rows] + margin))

    def _is_negative(self, anchor: slice | Int64[np.ndarray, "p"]) -> Bool[np.ndarray, "p K"]:
        own = self.products[self.anchors[anchor], None]
        other = self.products[self.near[anchor]]
        return np.asarray((other != own) & np.isfinite(self.distances[anchor]))


def _pairs(products: Int64[np.ndarray, "N"], limit: int, seed: int) -> Int64[np.ndarray, "P 2"]:
    """Anchor-positive pairs, sorted. The images of a product stand in a ring: a positive is some places further on."""
    order = np.argsort(products, kind="stable")[int((products < 0).sum()) :]
    _, starts, counts = np.unique(products[order], return_index=True, return_counts=True)
    found = [np.empty((0, 2), np.int64)]
    for count in np.unique(counts[counts > 1]).tolist():
        ring = order[starts[counts == count, None] + np.arange(count)]
        steps = 1 + step_rng(seed, count).permutation(count - 1)[:limit]
        positive = ring[:, (np.arange(count)[:, None] + steps) % count]
        anchor = np.broadcast_to(ring[:, :, None], positive.shape)
        found.append(np.stack([anchor.ravel(), positive.ravel()], axis=1))
    pairs = np.concatenate(found)
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def _matches(
    same: Protect, left: Int64[np.ndarray, "R"], near: Int64[np.ndarray, "R K"], ask: Bool[np.ndarray, "R K"]
) -> Int64[np.ndarray, "M 2"]:
    row, column = np.nonzero(ask)
    pairs = np.stack([left[row], near[row, column]], axis=1)
    return pairs[same(pairs[:, 0], pairs[:, 1])]


def _codes(first: Int64[np.ndarray, "..."], second: Int64[np.ndarray, "..."]) -> Int64[np.ndarray, "..."]:
    """One number for two, whatever their order."""
    return np.asarray(np.minimum(first, second) << 32 | np.maximum(first, second))


def _distances(
    vectors: Float[np.ndarray, "N D"], rows: Int64[np.ndarray, "R 1"], others: Int64[np.ndarray, "R K"]
) -> Float[np.ndarray, "R K"]:
    """Squared Euclidean, from differences in float64: small ones stay exact where 2 - 2 x cosine would cancel."""
    far = np.empty(others.shape)
    step = max(1, _NUMBERS_AT_ONCE // (others.shape[1] * vectors.shape[1]))
    for start in range(0, len(others), step):
        part = slice(start, start + step)
        difference = vectors[rows[part]].astype(np.float64) - vectors[others[part]]
        far[part] = np.einsum("rkd,rkd->rk", difference, difference)
    return far


def _chunks(count: int) -> Iterator[slice]:
    return (slice(start, min(start + _ROWS_AT_ONCE, count)) for start in range(0, count, _ROWS_AT_ONCE))
