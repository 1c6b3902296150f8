"""The index in LanceDB's tables: one table, a row an image, the model's fingerprint in its schema; here for reading."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from univert.core.errors import BadInputError
from univert.search.filters import check_column, check_vertical, sql_condition
from univert.search.lance_fill import LanceIndexWriter, creating
from univert.search.lance_open import open_published
from univert.search.lance_query import FILTERED_EXACT_ROWS, MAX_INDEXED_K, in_order, nearest_by_index, nearest_of_all
from univert.search.lance_rows import Rows
from univert.search.lance_schema import COMPATIBLE_KEY, MODEL_KEY
from univert.search.lance_structures import EXACT_ROWS, vector_index_state
from univert.search.lance_subsets import Subsets
from univert.search.place import Place
from univert.search.publications import published_version
from univert.search.store import Hit, Picture, Where, check_k, check_unit_vectors

__all__ = ["EXACT_ROWS", "LanceIndex", "LanceIndexWriter"]

_ROW_COLUMNS: Final = ("id", "vertical", "product", "brand", "style", "split", "source", "box")
_QUERIES_AT_ONCE: Final = 256


class LanceIndex:
    """One published version of an index, open for searching: a `VectorIndex` over LanceDB's storage engine.

    It never changes: what is published later is seen when the index is opened again, or through `IndexReader`. Up to
    `EXACT_ROWS` images, or where the filters leave few, every vector is compared and the answer is exact, equal
    distances in order of id also at the cut. Above, partitions of 8-bit vectors give candidates whose full vectors
    decide; rows that came after the partitions were made are compared one by one. Filters are applied before the
    search, so rare values still give `k` hits. Safe to use from several threads.
    """

    def __init__(self, place: Place, dataset: Any, exact_rows: int) -> None:
        """Internal: use `LanceIndex.open`."""
        self.uri = place.uri
        self._dataset = dataset
        metadata = dataset.schema.metadata or {}
        self._model_fingerprint: str = metadata[MODEL_KEY.encode()].decode()
        self._compatible_models: list[str] = json.loads(metadata.get(COMPATIBLE_KEY.encode(), b"[]"))
        self._size: int = dataset.schema.field("vector").type.list_size
        self._rows = Rows(dataset, place.uri)
        self._vector_index = vector_index_state(dataset)
        self._exact_rows = exact_rows
        self._subsets = Subsets(dataset)

    @classmethod
    @contextlib.contextmanager
    def create(
        cls,
        path: str | Path,
        *,
        size: int,
        model_fingerprint: str,
        overwrite: bool = False,
        exact_rows: int = EXACT_ROWS,
    ) -> Iterator[LanceIndexWriter]:
        """Create an index: fill the writer within the block; the index appears when the block ends well.

        Args:
            path: the folder to create.
            size: length D of the vectors.
            model_fingerprint: of the model that makes them; queries of another model will be refused.
            overwrite: replace an index at `path`; whoever has it open goes on undisturbed.
            exact_rows: build a vector index above this many rows.

        Raises:
            BadInputError: `path` exists and `overwrite` is false, what is there is not an index, another writer is at
                it, or what was added cannot be an index; nothing is left behind, and what was at `path` stays.

        Examples:
            >>> with LanceIndex.create(path, size=256, model_fingerprint="a1b2") as writer:  # doctest: +SKIP
            ...     writer.add(vectors, columns)
            >>> index = LanceIndex.open(path)  # doctest: +SKIP
        """
        with creating(Path(path), size, model_fingerprint, overwrite=overwrite, exact_rows=exact_rows) as writer:
            yield writer

    @classmethod
    def open(cls, path: str | Path | Place, *, exact_rows: int = EXACT_ROWS, version: int | None = None) -> LanceIndex:
        """Open an index for searching.

        Args:
            path: the folder, or `s3://bucket/prefix`.
            exact_rows: compare every vector where there are no more rows than this.
            version: a version that was published; by default the one that is.

        Raises:
            BadInputError: there is nothing at `path`, it is not an index of a format this version reads, or nothing
                has been published in it yet.
        """
        place = Place.of(path)
        return cls(place, open_published(place, version), exact_rows)

    @property
    def path(self) -> Path:
        """The folder of the index, for one that lies in a folder."""
        return Path(self.uri)

    @property
    def size(self) -> int:
        """Length D of a vector."""
        return self._size

    @property
    def version(self) -> int:
        """The number of this version; another version has another."""
        return int(self._dataset.version)

    @property
    def model_fingerprint(self) -> str:
        """The fingerprint of the model that made the vectors."""
        return self._model_fingerprint

    @property
    def compatible_models(self) -> list[str]:
        """Fingerprints of further models whose queries are answered: those that the index grew by."""
        return list(self._compatible_models)

    @property
    def approximate(self) -> bool:
        """Whether the index is large enough to have a vector index for approximate search."""
        return self._vector_index is not None

    @property
    def verticals(self) -> list[str]:
        """The verticals in the index, sorted."""
        return sorted(name for name, _ in self._rows.values("vertical"))

    def __len__(self) -> int:
        """Number of images."""
        return self._rows.count(None)

    def check_model(self, model_fingerprint: str) -> None:
        """Refuse another model before work is spent on a query.

        Raises:
            BadInputError: the model is neither the one that made the index nor recorded as compatible with it; the
                message names both.
        """
        if model_fingerprint not in (self._model_fingerprint, *self._compatible_models):
            raise BadInputError(
                f"{self.uri} was made with model {self._model_fingerprint}, the query with model "
                f"{model_fingerprint}, and their vectors cannot be compared; search with the first model, "
                "or index the catalogue again with the second"
            )

    def search(
        self, vector: ArrayLike, k: int = 10, *, where: Where | None = None, model_fingerprint: str
    ) -> list[Hit]:
        """The `k` images nearest to one vector.

        Args:
            vector: (D,) unit vector.
            k: how many; more than there are gives all.
            where: filters by column, see `univert.search.filters.sql_condition`.
            model_fingerprint: of the model that made `vector`.

        Returns:
            hits, nearest first.

        Raises:
            BadInputError: another model, a vector that is no finite unit vector of size D, k below 1, an
                unknown column or vertical.
        """
        return self.search_many(_as_one(vector), k, where=where, model_fingerprint=model_fingerprint)[0]

    def search_many(
        self, vectors: ArrayLike, k: int = 10, *, where: Where | None = None, model_fingerprint: str
    ) -> list[list[Hit]]:
        """The `k` images nearest to each of several vectors (Q, D); see `search`."""
        return self._search(vectors, k, where, model_fingerprint, exact=False)

    def exact_search(
        self, vector: ArrayLike, k: int = 10, *, where: Where | None = None, model_fingerprint: str
    ) -> list[Hit]:
        """As `search`, with every vector compared: what an approximate answer is measured against."""
        return self._search(_as_one(vector), k, where, model_fingerprint, exact=True)[0]

    def pictures(self, ids: Sequence[str]) -> list[Picture]:
        """The pictures of images, in the order asked for.

        Raises:
            BadInputError: an id that is not in the index.
        """
        return [
            Picture(image=row["image"], uri=row["uri"], box_xyxy_px=tuple(row["box"]) if row["box"] else None)
            for row in self._rows.named(ids, ["image", "uri", "box"])
        ]

    def row(self, name: str) -> dict[str, Any] | None:
        """The columns of an image without its vector and its picture; None if it is not in the index.

        Args:
            name: its id.
        """
        found = self._rows.found([name], [column for column in _ROW_COLUMNS if column != "id"])
        return {"id": name, **found[name]} if name in found else None

    def vectors(self, ids: Sequence[str]) -> Float[np.ndarray, "N D"]:
        """The vectors of images, in the order asked for.

        Raises:
            BadInputError: an id that is not in the index.
        """
        rows = [row["vector"] for row in self._rows.named(ids, ["vector"])]
        return np.asarray(rows, dtype=np.float32).reshape(len(rows), self._size)

    def distinct(self, column: str, limit: int = 1_000) -> list[tuple[str, int]]:
        """The values of a column and how many images have each, the most frequent first; empty ones do not count.

        Args:
            column: one of `univert.search.filters.FILTER_COLUMNS`.
            limit: at most so many.

        Raises:
            BadInputError: no such column.
        """
        return self._rows.values(check_column(column))[:limit]

    def published_now(self) -> int | None:
        """The version that is published by now; None for an index from before there were any."""
        return published_version(self._dataset)

    def warm(self) -> None:
        """Read what the first queries need, so that they need not wait for it."""
        self.verticals  # noqa: B018 - read and kept
        if self._vector_index is not None:
            for index in self._dataset.describe_indices():
                self._dataset.prewarm_index(index.name)

    def _search(
        self, vectors: ArrayLike, k: int, where: Where | None, model_fingerprint: str, *, exact: bool
    ) -> list[list[Hit]]:
        self.check_model(model_fingerprint)
        k = check_k(k)
        queries = check_unit_vectors(vectors, self._size, name="query vectors")
        condition = sql_condition(where)
        check_vertical(where, self.verticals)
        matching = self._rows.count(condition)
        k = min(k, matching)
        if not k:
            return [[] for _ in queries]
        few = self._exact_rows if condition is None else min(self._exact_rows, FILTERED_EXACT_ROWS)
        indexed = self.approximate and matching > few and k <= MAX_INDEXED_K and not exact
        answer = self._by_index if indexed else self._exactly
        return [
            hits
            for start in range(0, len(queries), _QUERIES_AT_ONCE)
            for hits in answer(queries[start : start + _QUERIES_AT_ONCE], k, condition, matching)
        ]

    def _exactly(
        self, queries: Float[np.ndarray, "Q D"], k: int, condition: str | None, matching: int
    ) -> list[list[Hit]]:
        return nearest_of_all(self._dataset, queries, k, condition, matching)

    def _by_index(
        self, queries: Float[np.ndarray, "Q D"], k: int, condition: str | None, matching: int
    ) -> list[list[Hit]]:
        subset = None if condition is None else self._subsets.find(condition, matching, self._size)
        if subset is not None:
            return in_order(self._dataset, queries, subset.candidates(queries, k), k)
        assert self._vector_index is not None
        answers = nearest_by_index(self._dataset, queries, k, condition, self._vector_index)
        # The partitions that were looked into may hold fewer than k.
        return [
            hits if len(hits) == k else self._exactly(queries[position : position + 1], k, condition, matching)[0]
            for position, hits in enumerate(answers)
        ]


def _as_one(vector: ArrayLike) -> ArrayLike:
    return cast("ArrayLike", [vector])
