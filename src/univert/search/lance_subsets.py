"""Vectors of the rows that popular filters leave: comparing all of them is quicker than going through the index.

A search with a filter has to look into every partition of the vector index, and to ask of every row whether the filter
leaves it: 30 ms a query for a million rows, however few are left. Comparing the ten thousand that are left takes one.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from jaxtyping import Float, UInt64

from univert.search.lance_effort import as_matrix

KEPT_BYTES: Final = 128_000_000
"""About 125,000 rows of 256-d, for all filters together."""

_ASKED_TWICE: Final = 2
_CONDITIONS_COUNTED: Final = 256
_CONDITION_LENGTH: Final = 1_000
"""Longer filters are not kept in mind: strangers write them."""
_MARGIN: Final = 1e-5
"""Squared distances summed in another order differ by less."""
_QUERIES_AT_ONCE: Final = 32
_CANDIDATES_PER_NEIGHBOUR: Final = 5
"""Where more than this many are equally near, as copies of one picture are, not all of them are read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Subset:
    """The rows that a filter leaves.

    Attributes:
        places: (N,) their addresses in the table.
        vectors: (N, D) their vectors.
        squares: (N,) the squared lengths of the vectors.
    """

    places: UInt64[np.ndarray, " N"]
    vectors: Float[np.ndarray, "N D"]
    squares: Float[np.ndarray, " N"]

    @property
    def bytes(self) -> int:
        """What it takes."""
        return int(self.places.nbytes + self.vectors.nbytes + self.squares.nbytes)

    def candidates(self, queries: Float[np.ndarray, "Q D"], limit: int) -> list[UInt64[np.ndarray, " _"]]:
        """Of each query, the addresses of its `limit` nearest rows, and of some that are as near as the last."""
        return [
            some
            for start in range(0, len(queries), _QUERIES_AT_ONCE)
            for some in self._candidates(queries[start : start + _QUERIES_AT_ONCE], limit)
        ]

    def _candidates(self, queries: Float[np.ndarray, "Q D"], limit: int) -> list[UInt64[np.ndarray, " _"]]:
        wanted = _CANDIDATES_PER_NEIGHBOUR * limit
        if len(self.places) <= wanted:
            return [self.places for _ in queries]
        # Squared distances but for what all rows of a query share; lengths are not quite 1.
        farness = self.squares - 2 * (queries @ self.vectors.T)
        nearest = np.argpartition(farness, wanted - 1, axis=1)[:, :wanted]
        found = np.take_along_axis(farness, nearest, axis=1)
        edges = np.partition(found, limit - 1, axis=1)[:, limit - 1]
        return [self.places[some[far <= edge + _MARGIN]] for some, far, edge in zip(nearest, found, edges, strict=True)]


class Subsets:
    """The subsets of one version of a table that are asked for more than once; the least recently used make room.

    Args:
        dataset: the version.
        kept_bytes: what all of them may take.
        rest: after reading one, the next waits this many times as long as that took: strangers choose the filters.
    """

    def __init__(self, dataset: Any, kept_bytes: int = KEPT_BYTES, rest: float = 4.0) -> None:
        self._dataset = dataset
        self._kept_bytes = kept_bytes
        self._rest = rest
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, Subset] = OrderedDict()
        self._asked: OrderedDict[str, int] = OrderedDict()
        self._reading: threading.Thread | None = None
        self._rest_until = 0.0

    def find(self, condition: str, rows: int, size: int) -> Subset | None:
        """The rows that a filter leaves, if they are at hand; if they are asked for again, they are read meanwhile.

        Args:
            condition: the filter.
            rows: how many it leaves.
            size: D.
        """
        if rows * (4 * size + 12) > self._kept_bytes or len(condition) > _CONDITION_LENGTH:
            return None
        with self._lock:
            if condition in self._kept:
                self._kept.move_to_end(condition)
                return self._kept[condition]
            asked = self._asked[condition] = self._asked.pop(condition, 0) + 1
            while len(self._asked) > _CONDITIONS_COUNTED:
                self._asked.popitem(last=False)
            busy = self._reading is not None or time.monotonic() < self._rest_until
            if asked >= _ASKED_TWICE and not busy:
                self._reading = threading.Thread(
                    target=self._read, args=(condition,), name="univert-subset", daemon=True
                )
                self._reading.start()
        return None

    def wait(self) -> None:
        """Until nothing is being read."""
        reading = self._reading
        if reading is not None:
            reading.join()

    def _read(self, condition: str) -> None:
        started = time.monotonic()
        subset = None
        try:
            subset = self._subset(condition)
        finally:
            with self._lock:
                self._reading = None
                self._rest_until = time.monotonic() + self._rest * (time.monotonic() - started)
                if subset is not None:
                    self._keep(condition, subset)

    def _subset(self, condition: str) -> Subset:
        places, vectors = list[np.ndarray](), list[np.ndarray]()
        for batch in self._dataset.to_batches(columns=["vector"], filter=condition, with_row_id=True):
            places.append(batch["_rowid"].to_numpy())
            vectors.append(as_matrix(batch["vector"]))
        stacked = np.concatenate(vectors)
        squares = np.einsum("nd,nd->n", stacked, stacked)
        return Subset(places=np.concatenate(places), vectors=stacked, squares=squares)

    def _keep(self, condition: str, subset: Subset) -> None:
        self._kept[condition] = subset
        self._asked.pop(condition, None)
        while sum(one.bytes for one in self._kept.values()) > self._kept_bytes:
            self._kept.popitem(last=False)
