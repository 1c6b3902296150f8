"""The index of a catalogue: vectors with their catalogue columns, in a table of LanceDB's format."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import pyarrow.compute as pc
from jaxtyping import Float
from numpy.typing import ArrayLike
from PIL import Image

from univert.core.errors import BadInputError
from univert.core.protocols import ImageEmbedder
from univert.search.filters import check_column, check_vertical, sql_condition
from univert.search.query import FILTERED_EXACT_SHARE, MAX_INDEXED_K, nearest_by_index, nearest_of_all, rows_by_id
from univert.search.records import Hit, Picture, Where, check_k, check_unit_vectors
from univert.search.storage import COMPATIBLE_KEY, MODEL_KEY, Location, metadata
from univert.search.vector_index import vector_index_state
from univert.search.versions import PUBLISHED, IndexStats, open_published, read_stats
from univert.search.writer import IndexWriter

QueryImage = str | Path | bytes | Image.Image
"""A file, its content, or a PIL image."""

_ROW_COLUMNS: Final = ("id", "vertical", "product", "brand", "style", "split", "source", "box")
_QUERIES_AT_ONCE: Final = 256


class Index:
    """One published version of an index, open for searching.

    It never changes: what is published later is seen when the index is opened again. Without a vector index, or where
    the filters leave few, every vector is compared and the answer is exact, equal distances in order of id also at the
    cut. Filters are applied before the search, so rare values still give `k` hits. Safe to use from several threads.

    Examples:
        >>> with Index.create("shop.index", size=256, model_fingerprint="a1b2") as writer:  # doctest: +SKIP
        ...     writer.upsert(vectors, columns)
        ...     writer.publish()
        >>> hits = Index.open("shop.index").search(vector, k=5, model_fingerprint="a1b2")  # doctest: +SKIP
    """

    def __init__(self, location: Location, dataset: Any) -> None:
        """Internal: use `Index.open`."""
        self.uri = location.uri
        self._location = location
        self._dataset = dataset
        about = metadata(dataset)
        self._model_fingerprint = about[MODEL_KEY]
        self._compatible_models: list[str] = json.loads(about.get(COMPATIBLE_KEY, "[]"))
        self._size: int = dataset.schema.field("vector").type.list_size
        self._vector_index = vector_index_state(dataset)
        self._values: dict[str, list[tuple[str, int]]] = {}

    @staticmethod
    def create(path: str | Path, *, size: int, model_fingerprint: str) -> IndexWriter:
        """Start an empty index; it can be opened when something has been published.

        Args:
            path: a folder that does not exist yet, or `s3://bucket/prefix`.
            size: length D of the vectors.
            model_fingerprint: of the model that makes them; queries of another model will be refused.

        Raises:
            BadInputError: something is there, or another process is writing there.
        """
        return IndexWriter.create(path, size=size, model_fingerprint=model_fingerprint)

    @classmethod
    def open(cls, path: str | Path | Location, *, version: int | None = None) -> Index:
        """Open an index for searching.

        Args:
            path: the folder, or `s3://bucket/prefix`.
            version: a version that was published; by default the one that is.

        Raises:
            BadInputError: there is nothing at `path`, it is not an index of the format this version reads, or nothing
                has been published in it yet.
            StorageError: the object store could not be read.
        """
        location = Location.of(path)
        return cls(location, open_published(location, version))

    @staticmethod
    def writer(path: str | Path | Location) -> IndexWriter:
        """Become the writer of an index at a folder or `s3://bucket/prefix`; see `IndexWriter`.

        Raises:
            BadInputError: no index there, or another process is writing to it.
        """
        return IndexWriter.open(path)

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
        return sorted(name for name, _ in self._value_counts("vertical"))

    def __len__(self) -> int:
        """Number of images."""
        return int(self._dataset.count_rows())

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
        self, vector: ArrayLike, k: int = 10, *, where: Where | None = None, model_fingerprint: str, exact: bool = False
    ) -> list[Hit]:
        """The `k` images nearest to one vector.

        Args:
            vector: (D,) unit vector.
            k: how many; more than there are gives all.
            where: filters by column, see `univert.search.filters.sql_condition`.
            model_fingerprint: of the model that made `vector`.
            exact: compare every vector, however many there are.

        Returns:
            hits, nearest first.

        Raises:
            BadInputError: another model, a vector that is no finite unit vector of size D, k below 1, an
                unknown column or vertical.
        """
        one = cast("ArrayLike", [vector])
        return self.search_many(one, k, where=where, model_fingerprint=model_fingerprint, exact=exact)[0]

    def search_many(
        self,
        vectors: ArrayLike,
        k: int = 10,
        *,
        where: Where | None = None,
        model_fingerprint: str,
        exact: bool = False,
    ) -> list[list[Hit]]:
        """The `k` images nearest to each of several vectors (Q, D); see `search`."""
        self.check_model(model_fingerprint)
        k = check_k(k)
        queries = check_unit_vectors(vectors, self._size, name="query vectors")
        condition = sql_condition(where)
        check_vertical(where, self.verticals)
        matching = int(self._dataset.count_rows(condition))
        k = min(k, matching)
        if not k:
            return [[] for _ in queries]
        few = condition is not None and matching <= FILTERED_EXACT_SHARE * len(self)
        indexed = self.approximate and not few and k <= MAX_INDEXED_K and not exact
        answers: list[list[Hit]] = []
        for start in range(0, len(queries), _QUERIES_AT_ONCE):
            some = queries[start : start + _QUERIES_AT_ONCE]
            if indexed:
                answers += self._by_index(some, k, condition, matching)
            else:
                answers += nearest_of_all(self._dataset, some, k, condition, matching)
        return answers

    def pictures(self, ids: Sequence[str]) -> list[Picture]:
        """The pictures of images, in the order asked for.

        Raises:
            BadInputError: an id that is not in the index.
        """
        return [
            Picture(image=row["image"], uri=row["uri"], box_xyxy_px=tuple(row["box"]) if row["box"] else None)
            for row in self._named(ids, ["image", "uri", "box"])
        ]

    def row(self, name: str) -> dict[str, Any] | None:
        """The columns of the image with this id, without vector and picture; None if it is not in the index."""
        found: list[dict[str, Any]] = rows_by_id(self._dataset, [name], _ROW_COLUMNS).to_pylist()
        return found[0] if found else None

    def vectors(self, ids: Sequence[str]) -> Float[np.ndarray, "N D"]:
        """The vectors of images, in the order asked for.

        Raises:
            BadInputError: an id that is not in the index.
        """
        rows = [row["vector"] for row in self._named(ids, ["vector"])]
        return np.asarray(rows, dtype=np.float32).reshape(len(rows), self._size)

    def distinct(self, column: str, limit: int = 1_000) -> list[tuple[str, int]]:
        """At most `limit` values of a filter column and how many images have each, the most frequent first.

        Raises:
            BadInputError: no such column.
        """
        return self._value_counts(check_column(column))[:limit]

    def stats(self) -> IndexStats:
        """What the index holds by now, as published and as being worked on, and the versions that are kept."""
        return read_stats(self._location)

    def sample(self, count: int, seed: int = 0) -> list[str]:
        """The ids of some images, drawn at random; all of them if there are no more."""
        rows = np.random.default_rng(seed).permutation(len(self))[:count]
        names: list[str] = self._dataset.take(np.sort(rows).tolist(), columns=["id"])["id"].to_pylist()
        return names

    def published_now(self) -> int:
        """The version that is published by now."""
        return int(self._dataset.tags.get_version(PUBLISHED))

    def warm(self) -> None:
        """Read what the first queries need, so that they need not wait for it."""
        self._value_counts("vertical")
        if self.approximate:
            for index in self._dataset.describe_indices():
                self._dataset.prewarm_index(index.name)

    def _by_index(
        self, queries: Float[np.ndarray, "Q D"], k: int, condition: str | None, matching: int
    ) -> list[list[Hit]]:
        assert self._vector_index is not None
        answers = nearest_by_index(self._dataset, queries, k, condition, self._vector_index)
        # The partitions that were looked into may hold fewer than k.
        short = [position for position, hits in enumerate(answers) if len(hits) < k]
        if short:
            exact = nearest_of_all(self._dataset, queries[short], k, condition, matching)
            for position, hits in zip(short, exact, strict=True):
                answers[position] = hits
        return answers

    def _value_counts(self, column: str) -> list[tuple[str, int]]:
        if column not in self._values:
            values = self._dataset.to_table(columns=[column])[column].drop_null()
            counted = [(entry["values"], entry["counts"]) for entry in pc.value_counts(values).to_pylist()]
            self._values[column] = sorted(counted, key=lambda entry: (-entry[1], entry[0]))
        return self._values[column]

    def _named(self, ids: Sequence[str], columns: Sequence[str]) -> list[dict[str, Any]]:
        """Some columns of images, in the order asked for; an id that is not in the index is refused."""
        found = {row["id"]: row for row in rows_by_id(self._dataset, ids, ["id", *columns]).to_pylist()}
        missing = next((name for name in ids if name not in found), None)
        if missing is not None:
            raise BadInputError(f"no image {missing!r} in {self.uri}")
        return [found[name] for name in ids]


def search_image(
    model: ImageEmbedder, index: Index, image: QueryImage, k: int = 10, *, where: Where | None = None
) -> list[Hit]:
    """The `k` indexed images nearest to an image.

    Args:
        model: the model that made the index.
        index: where to search.
        image: the photo that is asked about.
        k: how many; more than there are gives all.
        where: filters by column, see `univert.search.filters.sql_condition`.

    Returns:
        hits, nearest first.

    Raises:
        BadInputError: another model than the index's, an image that cannot be read, a vertical that is not in the
            index, or k below 1.
    """
    fingerprint = model.fingerprint
    index.check_model(fingerprint)
    return index.search(model.embed([image])[0], k, where=where, model_fingerprint=fingerprint)
