"""Strong negatives: the semi-hard negatives of every anchor, searched for in the whole catalogue through an index.

`mine_strong_negatives` gives a table of them; `ReminingSampler` mines anew while the model learns, with exact resume.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float, Int64

from univert.core.errors import BadInputError
from univert.core.terminal import progress_bar
from univert.data.samplers import Positions, Sampler, step_rng
from univert.data.strong_negatives import MiningStatistics, StrongNegatives
from univert.models.embedder import Embedder
from univert.search.index import Index
from univert.search.query import check_unit_vectors
from univert.training.sources import Source

Neighbours = Callable[[Int64[np.ndarray, "Q"], int], Int64[np.ndarray, "Q K"]]
"""The `k` images nearest to each of some images within its vertical (itself may be among them); -1 where there are
fewer."""
Protect = Callable[[np.ndarray, np.ndarray], Bool[np.ndarray, "..."]]
"""Whether images are near-duplicates of others, given their positions: `univert.data.duplicates.NearDuplicates`."""

_ROWS_AT_ONCE = 1024
_NUMBERS_AT_ONCE = 1 << 22


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
    proposes neighbours, and their distances are computed anew. Memory is O(N x neighbours), never N x N.

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
        labelled = products >= 0
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

    def twins(self, same: Protect, margin: float) -> Int64[np.ndarray, "M 2"]:
        """Near-duplicates under different products: of anchors among their neighbours, of positives in the window."""
        found = [
            _matches(same, self.anchors[rows], self.near[rows], self._is_negative(rows))
            for rows in _chunks(len(self.anchors))
        ]
        for rows, in_window in self._windows(margin):
            near = self.near[self.anchor_row[rows]]
            found.append(_matches(same, self.pairs[rows, 1], near, in_window))
        return np.unique(np.sort(np.concatenate(found), axis=1), axis=0)

    def table(self, margin: float, k: int, twins: Int64[np.ndarray, "M 2"]) -> StrongNegatives:
        """The nearest `k` negatives in each pair's window, without those of products that share a picture."""
        barred = np.unique(_codes(*self.products[twins].T))
        last = np.where(np.isfinite(self.distances), self.distances, -np.inf).max(1)
        kept, negatives, excluded, cut_short = [], [], 0, 0
        for rows, in_window in self._windows(margin):
            near = self.near[self.anchor_row[rows]]
            if len(barred):
                own, other = self.products[self.pairs[rows, 0], None], self.products[near]
                wrong = in_window & np.isin(_codes(own, other), barred)
                excluded += int(wrong.sum())
                in_window &= ~wrong
            first = np.argsort(~in_window, axis=1, kind="stable")[:, :k]
            chosen = np.where(np.take_along_axis(in_window, first, axis=1), np.take_along_axis(near, first, axis=1), -1)
            anchor, some = self.anchor_row[rows], chosen[:, 0] >= 0
            goes_on = ~self.complete[anchor] & (last[anchor] < self.gaps[rows] + margin)
            cut_short += int((goes_on & (in_window.sum(1) < k)).sum())
            kept.append(np.flatnonzero(some) + rows.start)
            negatives.append(chosen[some])
        pair = np.concatenate(kept)
        return StrongNegatives(
            anchors=self.pairs[pair, 0],
            positives=self.pairs[pair, 1],
            negatives=np.concatenate(negatives),
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

    def _windows(self, margin: float) -> Iterator[tuple[slice, Bool[np.ndarray, "p K"]]]:
        """Pairs a chunk at a time, with the neighbours of their anchors that are semi-hard negatives of them."""
        for rows in _chunks(len(self.pairs)):
            anchor, gap = self.anchor_row[rows], self.gaps[rows, None]
            far = self.distances[anchor]
            yield rows, self._is_negative(anchor) & (gap < far) & (far < gap + margin)

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


class ReminingSampler(Sampler):
    """Batches from a table of strong negatives that is mined anew every so many steps.

    A table is mined when a batch of it is first asked for, and saved before the batch is given. The loop asks for a
    batch one step ahead, so when it writes a checkpoint, the table of the next step is on disk: a run that was killed
    reads it, and walks the very same path. So the files must not outlive the checkpoint; keep both in one folder.

    Args:
        mine: gives a table from the model as it stands; see `miner_of`.
        sample: gives the sampler of a table; `batch_size` and `steps_per_epoch` must not depend on the table.
        every_steps: how long a table serves.
        folder: for `strong-negatives-J.safetensors`, J counting from 0.

    Raises:
        BadInputError: `every_steps` is below 1.
    """

    def __init__(
        self,
        mine: Callable[[], StrongNegatives],
        sample: Callable[[StrongNegatives], Sampler],
        *,
        every_steps: int,
        folder: Path,
    ) -> None:
        if every_steps < 1:
            raise BadInputError(f"every_steps must be at least 1, got {every_steps}; 500 is a start")
        self._mine, self._sample, self._every_steps = mine, sample, every_steps
        self._folder = folder
        self._current: tuple[int, Sampler] | None = None
        plain = sample(StrongNegatives.none())
        self.batch_size, self.steps_per_epoch = plain.batch_size, plain.steps_per_epoch

    def batch(self, step: int) -> Positions:
        """Positions of step `step`; mines where its table is missing."""
        number = step // self._every_steps
        if self._current is None or self._current[0] != number:
            path = self._folder / f"strong-negatives-{number}.safetensors"
            table = StrongNegatives.load(path)
            if table is None:
                table = self._mine()
                table.save(path)
            self._current = number, self._sample(table)
        return self._current[1].batch(step)


def miner_of(
    embedder: Embedder,
    source: Source,
    products: Int64[np.ndarray, "N"],
    verticals: Int64[np.ndarray, "N"] | None = None,
    *,
    margin: float = 0.2,
    protect: Protect | None = None,
    seed: int = 0,
) -> Callable[[], StrongNegatives]:
    """A function that embeds the labelled images with the model as it stands, and mines them.

    Args:
        embedder: the model in training; its mode (training or not) is left as it was.
        source: of its embeddings.
        products: the product code of every image of the catalogue; -1 for all that do not take part.
        verticals: see `mine_strong_negatives`, as for the rest.
        margin: of the window.
        protect: tells near-duplicates.
        seed: of the positives.
    """
    positions = np.flatnonzero(products >= 0)

    def mine() -> StrongNegatives:
        training = embedder.training
        vectors = np.zeros((len(products), embedder.size), np.float32)
        vectors[positions] = source.embed_all(embedder, positions)
        embedder.train(training)
        return mine_strong_negatives(vectors, products, verticals, margin=margin, protect=protect, seed=seed)

    return mine
