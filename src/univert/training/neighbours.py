"""Neighbours of many images at once, each among the images of its own vertical: through the index, or exactly."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float, Int64

from univert.search.exact import exact_neighbours
from univert.search.index import Index

Rows = Int64[np.ndarray, "Q"]
_MODEL = "mining"


class Neighbours(Protocol):
    """Finds the images nearest to some of them within their own verticals."""

    def __call__(self, rows: Rows, k: int) -> Int64[np.ndarray, "Q K"]:
        """The `k` images nearest to each of some images (itself may be among them); -1 where there are fewer."""
        ...


class IndexNeighbours:
    """Neighbours through a search index: how the whole catalogue is mined without comparing all pairs.

    Args:
        index: holds the images.
        ids: the name in the index of each image; images of the index that are not among them are passed over.
        vectors: of the images, by the model that made the index.
        verticals: the vertical in the index of each image.
    """

    def __init__(
        self, index: Index, ids: Sequence[str], vectors: Float[np.ndarray, "N D"], verticals: Sequence[str]
    ) -> None:
        self._index, self._vectors = index, vectors
        self._row = {name: row for row, name in enumerate(ids)}
        self._verticals = np.asarray(verticals, dtype=object)

    @classmethod
    def build(
        cls, folder: Path, vectors: Float[np.ndarray, "N D"], verticals: Int64[np.ndarray, "N"], rows: Rows
    ) -> IndexNeighbours:
        """Build a LanceDB index of some vectors, nothing else, and search in that.

        Args:
            folder: where the index goes; it must not exist.
            vectors: unit vectors.
            verticals: a code for each.
            rows: of the vectors that can be found.
        """
        ids = [f"{row:012d}" for row in range(len(vectors))]  # so that ties go by row
        names = [str(vertical) for vertical in verticals.tolist()]
        columns = pa.table({"id": ids, "vertical": names}).take(rows)
        with Index.create(folder, size=vectors.shape[1], model_fingerprint=_MODEL) as writer:
            writer.upsert(vectors[rows], columns)
            writer.publish()
        return cls(Index.open(folder), ids, vectors, names)

    def __call__(self, rows: Rows, k: int) -> Int64[np.ndarray, "Q K"]:
        """See `Neighbours`."""
        found = np.full((len(rows), k), -1, np.int64)
        for vertical in sorted(set(self._verticals[rows])):
            here = np.flatnonzero(self._verticals[rows] == vertical)
            answers = self._index.search_many(
                self._vectors[rows[here]],
                k,
                where={"vertical": vertical},
                model_fingerprint=self._index.model_fingerprint,
            )
            for place, hits in zip(here, answers, strict=True):
                found[place, : len(hits)] = [self._row.get(hit.id, -1) for hit in hits]
        return found


class ExactNeighbours:
    """Neighbours by comparing all pairs: the oracle; also quick enough for a few thousand images.

    Args:
        vectors: of the images.
        verticals: a code for each.
        allowed: which images can be found.
    """

    def __init__(
        self, vectors: Float[np.ndarray, "N D"], verticals: Int64[np.ndarray, "N"], allowed: Bool[np.ndarray, "N"]
    ) -> None:
        self._vectors, self._verticals, self._allowed = vectors, verticals, allowed

    def __call__(self, rows: Rows, k: int) -> Int64[np.ndarray, "Q K"]:
        """See `Neighbours`."""
        found = np.full((len(rows), k), -1, np.int64)
        for vertical in np.unique(self._verticals[rows]):
            here = np.flatnonzero(self._verticals[rows] == vertical)
            allowed = self._allowed & (self._verticals == vertical)
            near, _ = exact_neighbours(self._vectors[rows[here]], self._vectors, k, allowed=allowed)
            found[here, : near.shape[1]] = near
        return found
