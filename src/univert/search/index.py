"""The index of a catalogue: one version of it to search in, and the newest version, whichever it is by now."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from univert.core.errors import BadInputError, UnivertError
from univert.core.files import fingerprint
from univert.search.memory import MemoryRows
from univert.search.query import (
    FILTER_COLUMNS,
    Hit,
    Picture,
    Where,
    check_column,
    check_k,
    check_unit_vectors,
    check_where,
)
from univert.search.storage import COMPATIBLE_KEY, MODEL_KEY, Location, metadata, open_table, rows_by_id, unreadable
from univert.search.vector_index import as_matrix, has_vector_index
from univert.search.versions import PUBLISHED, IndexStats, open_published, read_stats
from univert.search.writer import IndexWriter

_log = logging.getLogger(__name__)


class Index:
    """One published version of an index, open for searching.

    It never changes: what is published later is seen when the index is opened again. The first search reads everything
    but the pictures into memory. Without a vector index, or where the filters leave few, every vector is compared and
    the answer is exact, equal distances in order of id also at the cut. Filters are applied before the search, so rare
    values still give `k` hits. Safe to use from several threads.

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
        self._images = int(dataset.count_rows())
        self._values: dict[str, list[tuple[str, int]]] = {}

    create = staticmethod(IndexWriter.create)
    writer = staticmethod(IndexWriter.open)

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

    @cached_property
    def identity(self) -> str:
        """A hash of the number and the files of this version: an index made anew has the same numbers again."""
        files = [str(fragment.metadata.to_json()) for fragment in self._dataset.get_fragments()]
        return fingerprint(self.version, metadata(self._dataset), files)

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
        return has_vector_index(self._dataset)

    @property
    def verticals(self) -> list[str]:
        """The verticals in the index, sorted."""
        return sorted(name for name, _ in self.distinct("vertical", None))

    def __len__(self) -> int:
        """Number of images."""
        return self._images

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
            where: filters by column, see `univert.search.query.check_where`.
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
        threads: int = 1,
    ) -> list[list[Hit]]:
        """The `k` images nearest to each of several vectors (Q, D), see `search`; a long search uses all `threads`."""
        self.check_model(model_fingerprint)
        k = check_k(k)
        queries = check_unit_vectors(vectors, self._size, name="query vectors")
        return self._rows.search(queries, k, check_where(where, self.verticals), exact=exact, threads=threads)

    def pictures(self, ids: Sequence[str]) -> list[Picture]:
        """The pictures of images, in the order asked for.

        Raises:
            BadInputError: an id that is not in the index.
        """
        return [
            Picture(image=row["image"], uri=row["uri"], box_xyxy_px=tuple(row["box"]) if row["box"] else None)
            for row in self._in_order(rows_by_id(self._dataset, ids, ["id", "image", "uri", "box"]), ids)
        ]

    def row(self, name: str) -> dict[str, Any] | None:
        """The columns of the image with this id, without vector and picture; None if it is not in the index."""
        return next(iter(self._rows.named([name], [*FILTER_COLUMNS, "box"]).to_pylist()), None)

    def vectors(self, ids: Sequence[str]) -> Float[np.ndarray, "N D"]:
        """The vectors of images, in the order asked for; each value is off by at most 1.6e-5.

        Raises:
            BadInputError: an id that is not in the index.
        """
        rows = [row["vector"] for row in self._in_order(self._rows.named(ids, ["id", "vector"]), ids)]
        return np.asarray(rows, dtype=np.float32).reshape(len(rows), self._size)

    def labelled_vectors(self) -> tuple[Float[np.ndarray, "N D"], list[str]]:
        """The vectors of all images whose product is known, as `vectors` gives them, and their products."""
        products = self._rows.column("product")
        labelled = products.is_valid().to_numpy(zero_copy_only=False)
        vectors = as_matrix(self._rows.column("vector"))[labelled]
        return vectors, products.drop_null().to_pylist()

    def distinct(self, column: str, limit: int | None = 1_000) -> list[tuple[str, int]]:
        """The values of a filter column, at most `limit`, and how many images have each, the most frequent first.

        Raises:
            BadInputError: no such column.
        """
        check_column(column)
        if column not in self._values:
            values = self._rows.column(column).drop_null()
            counted = [(entry["values"], entry["counts"]) for entry in pc.value_counts(values).to_pylist()]
            self._values[column] = sorted(counted, key=lambda entry: (-entry[1], entry[0]))
        return self._values[column][:limit]

    def known(self, column: str, values: Sequence[str]) -> list[str]:
        """Those of the values that some image has in a filter column other than `id`."""
        return self._rows.known(column, values)

    def stats(self) -> IndexStats:
        """What the index holds by now, as published and as being worked on, and the versions that are kept."""
        return read_stats(self._location)

    def ids(self, rows: Int[np.ndarray, " R"]) -> list[str]:
        """The ids of images by their numbers, from 0 on, in this version."""
        return list(self._rows.column("id").take(pa.array(rows)).to_pylist())

    def warm(self) -> None:
        """Read what the first search needs, so that it need not wait for it."""
        self.distinct("vertical")

    @cached_property
    def _rows(self) -> MemoryRows:
        return MemoryRows(self._dataset)

    def _in_order(self, rows: pa.Table, ids: Sequence[str]) -> list[dict[str, Any]]:
        """The rows of images, in the order asked for; an id that is not in the index is refused."""
        found = {row["id"]: row for row in rows.to_pylist()}
        missing = next((name for name in ids if name not in found), None)
        if missing is not None:
            raise BadInputError(f"no image {missing!r} in {self.uri}")
        return [found[name] for name in ids]


class IndexReader(AbstractContextManager["IndexReader"]):
    """The published version of an index, whichever it is by now.

    A thread of its own looks for a newer version, makes it ready, and only then puts it in the place of the old one.
    Who holds the old one goes on with it: a request that takes `current()` once is answered by one version, wholly.
    If looking fails, as when an object store is away for a while, or what was published is refused by `check`, the
    version at hand stays in use and the next look comes.

    Examples:
        >>> reader = IndexReader.open("shop.index")  # doctest: +SKIP
        >>> hits = reader.current().search(vector, model_fingerprint="a1b2")  # doctest: +SKIP
    """

    def __init__(self, location: Location, first: Index, refresh_s: float, prepare: Callable[[Index], None]) -> None:
        """Internal: use `IndexReader.open`."""
        self._location = location
        self._current = first
        self._prepare = prepare
        self._error: str | None = None
        self._looking = threading.Lock()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._look_again, args=(refresh_s,), daemon=True)
        self._thread.start()

    @classmethod
    def open(
        cls, uri: str | Path | Location, refresh_s: float = 1.0, *, check: Callable[[Index], None] | None = None
    ) -> IndexReader:
        """Open an index for as long as a service runs.

        Args:
            uri: a folder, or `s3://bucket/prefix`.
            refresh_s: how often to look for a newer version. While one is read, memory holds both.
            check: raises an error for a version that must not be used, such as one of another model:
                `lambda index: index.check_model(fingerprint)`. The first version must pass; a later one that does
                not is passed over.

        Raises:
            BadInputError: no index there, nothing has been published in it, or it is damaged.
            StorageError: the object store could not be read.
            Exception: what `check` raises for the first version.
        """
        location = Location.of(uri)

        def prepare(index: Index) -> None:
            if check is not None:
                check(index)
            index.warm()

        try:
            first = Index.open(location)
            prepare(first)
        except UnivertError:
            raise
        except (OSError, ValueError, RuntimeError) as error:  # as the engine tells of its storage
            raise unreadable(location, error) from error
        return cls(location, first, refresh_s, prepare)

    def __exit__(self, *raised: object) -> None:
        self.close()

    @property
    def error(self) -> str | None:
        """Why the last look for a newer version failed; None if it did not."""
        return self._error

    def current(self) -> Index:
        """The newest version that is ready. It never changes: take it once a request."""
        return self._current

    def refresh(self) -> bool:
        """Look for a newer version, or another index at the same place, and wait for it; returns whether there was one.

        Raises:
            Exception: what the storage met, or what `check` raises for it; the version at hand stays.
        """
        with self._looking:
            version = int(self._current._dataset.tags.get_version(PUBLISHED))
            newer = Index(self._location, open_table(self._location, version))
            if newer.identity == self._current.identity:
                return False
            self._prepare(newer)
            self._current = newer
            return True

    def close(self) -> None:
        """Stop looking. The version at hand can be used on."""
        self._closed.set()
        self._thread.join()

    def _look_again(self, refresh_s: float) -> None:
        while not self._closed.wait(refresh_s):
            try:
                self.refresh()
                self._error = None
            except Exception as error:
                # Whatever the storage met, requests must go on with what there is.
                if self._error is None:
                    _log.warning("looking for a newer version of %s failed: %s", self._location.uri, error)
                self._error = str(error)
