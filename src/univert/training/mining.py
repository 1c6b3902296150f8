"""Strong negatives: the semi-hard negatives of every anchor, searched for in the whole catalogue.

`mine_strong_negatives` gives a table of them; see `univert.training.remining` for what mines while a model learns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Bool, Float, Int64
from scipy import sparse

from univert.core.errors import BadInputError
from univert.core.terminal import progress_bar
from univert.data.samplers import step_rng
from univert.data.strong_negatives import StrongNegatives
from univert.search.query import check_unit_vectors

Protect = Callable[[np.ndarray, np.ndarray], Bool[np.ndarray, "..."]]
"""Whether images are near-duplicates of others, given their positions: `univert.data.duplicates.NearDuplicates`."""

_NUMBERS_AT_ONCE = 1 << 22
_COMPARED_PICTURES = 100
"""So many neighbours of other products are compared with an anchor's picture."""
_ROUNDING = 1e-12
"""How far a distance may be off."""


def mine_strong_negatives(
    vectors: Float[np.ndarray, "N D"],
    products: Int64[np.ndarray, "N"],
    verticals: Int64[np.ndarray, "N"] | None = None,
    *,
    margin: float = 0.2,
    k: int = 8,
    positives: int = 8,
    protect: Protect | None = None,
    seed: int = 0,
) -> StrongNegatives:
    """For each anchor-positive pair the nearest n of the whole catalogue with D(a,p) < D(a,n) < D(a,p) + margin.

    A negative is an image of another product of the anchor's vertical; D is the squared Euclidean distance. Every
    anchor is compared with all images of its vertical, so the table is exact: time grows with the square of a vertical,
    memory with N alone.

    Where images under two products are near-duplicates, the two products are most likely one, so no image of either
    serves as a negative of the other. Each anchor's picture is compared with those of its 100 nearest neighbours of
    other products. The result lists the images.

    Args:
        vectors: unit vectors of all training images, by the model as it stands.
        products: the product code of each; -1 (unlabelled) takes no part, for it might be of any product.
        verticals: the code of each image's vertical; None: all share one.
        margin: width of the window, in squared distance; that of the loss.
        k: negatives a pair gets at most.
        positives: pairs an anchor gets at most, drawn so that each image is a positive equally often: a product
            of a thousand images does not make a million pairs.
        protect: tells near-duplicates among the rows; None protects from nothing.
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
    for name, limit in {"margin": margin, "k": k, "positives": positives}.items():
        if not limit > 0:
            raise BadInputError(f"{name} must be positive, got {limit}")
    check_unit_vectors(vectors[products >= 0], vectors.shape[-1])
    pairs = _pairs(products, positives, seed)
    if not len(pairs):
        return StrongNegatives.none()
    search = _Search(vectors.astype(np.float64), products, verticals, pairs)
    twins = search.twins(protect) if protect else np.empty((0, 2), np.int64)
    negatives = search.negatives(margin, k, twins)
    found = negatives[:, 0] >= 0
    return StrongNegatives(
        anchors=pairs[found, 0],
        positives=pairs[found, 1],
        negatives=negatives[found],
        protected=twins,
        anchors_searched=len(np.unique(pairs[:, 0])),
    )


class _Search:
    """Compares the anchors of (P, 2) anchor-positive pairs with all labelled images of their verticals."""

    def __init__(
        self,
        vectors: Float[np.ndarray, "N D"],
        products: Int64[np.ndarray, "N"],
        verticals: Int64[np.ndarray, "N"],
        pairs: Int64[np.ndarray, "P 2"],
    ) -> None:
        self.vectors, self.verticals, self.pairs = vectors, verticals, pairs
        self.squares = np.einsum("nd,nd->n", vectors, vectors)
        self.labelled = products >= 0
        self.products = np.unique(products, return_inverse=True)[1]

    def twins(self, same: Protect) -> Int64[np.ndarray, "M 2"]:
        """Near-duplicates under different products, the smaller position first."""
        found = [np.empty((0, 2), np.int64)]
        for _, anchors, _, others, far in self._blocks("comparing pictures"):
            nearest, distance = _smallest(far, _COMPARED_PICTURES)
            row, column = np.nonzero(np.isfinite(distance))
            both = np.stack([anchors[row], others[nearest[row, column]]], axis=1)
            found.append(both[same(both[:, 0], both[:, 1])])
        return np.unique(np.sort(np.concatenate(found), axis=1), axis=0)

    def negatives(self, margin: float, k: int, twins: Int64[np.ndarray, "M 2"]) -> Int64[np.ndarray, "P K"]:
        """The nearest `k` in each pair's window, -1 where there are fewer, without products that share a picture."""
        both_ways = self.products[np.concatenate([twins, twins[:, ::-1]])].T
        shares_picture = sparse.csr_array(
            (np.ones(both_ways.shape[1]), both_ways), shape=(self.products.max() + 1,) * 2
        )
        chosen = np.full((len(self.pairs), k), -1, np.int64)
        for pairs, anchors, row, others, far in self._blocks("mining negatives"):
            far[shares_picture[self.products[anchors]][:, self.products[others]].nonzero()] = np.inf
            difference = self.vectors[self.pairs[pairs, 0]] - self.vectors[self.pairs[pairs, 1]]
            gap = np.einsum("pd,pd->p", difference, difference)
            reach = np.zeros(len(anchors))
            np.maximum.at(reach, row, gap + margin)
            nearest, distance = _smallest(far, int((far < reach[:, None]).sum(1).max()))
            padding = ((0, 0), (0, k))
            near = np.pad(others[nearest], padding, constant_values=-1)
            distance = np.pad(distance, padding, constant_values=np.inf)
            first = (distance[row] <= gap[:, None] + _ROUNDING).sum(1)
            place = row[:, None], first[:, None] + np.arange(k)
            chosen[pairs] = np.where(distance[place] < gap[:, None] + margin, near[place], -1)
        return chosen

    def _blocks(self, doing: str) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
        """Some pairs at a time, and what their anchors are compared with.

        Yields:
            the pairs' numbers, the anchors, each pair's place among them, the images of the vertical, and the squared
            distances of the anchors to these, infinite within a product.
        """
        verticals = self.verticals[self.pairs[:, 0]]
        with progress_bar(doing, len(self.pairs)) as advance:
            for vertical in np.unique(verticals):
                others = np.flatnonzero(self.labelled & (self.verticals == vertical))
                products, squares, columns = self.products[others], self.squares[others], self.vectors[others].T
                in_vertical = np.flatnonzero(verticals == vertical)
                step = max(1, _NUMBERS_AT_ONCE // len(others))
                for start in range(0, len(in_vertical), step):
                    pairs = in_vertical[start : start + step]
                    anchors, row = np.unique(self.pairs[pairs, 0], return_inverse=True)
                    far = self.squares[anchors, None] + squares - 2 * (self.vectors[anchors] @ columns)
                    far[self.products[anchors, None] == products] = np.inf
                    yield pairs, anchors, row, others, far
                    advance(len(pairs))


def _smallest(far: Float[np.ndarray, "R N"], k: int) -> tuple[Int64[np.ndarray, "R K"], Float[np.ndarray, "R K"]]:
    """Columns of the up to `k` smallest numbers of each row, ascending, and the numbers."""
    k = min(k, far.shape[1])
    columns = np.sort(np.argpartition(far, k - 1, axis=1)[:, :k], axis=1)
    found = np.take_along_axis(far, columns, axis=1)
    order = np.argsort(found, axis=1, kind="stable")
    return np.take_along_axis(columns, order, axis=1), np.take_along_axis(found, order, axis=1)


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
