"""Changing an index: images added, renewed and deleted out of sight of readers, then published in one step."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import lance
import pyarrow as pa
from numpy.typing import ArrayLike

from univert.core.errors import BadInputError
from univert.search.filters import sql_condition
from univert.search.lance_changes import Parts, bring_up_to_date, merge, read_columns, some_at_a_time
from univert.search.lance_open import open_table
from univert.search.lance_schema import COMPATIBLE_KEY, MODEL_KEY, REBUILDING_KEY, empty_index, index_rows
from univert.search.lance_structures import EXACT_ROWS, compact, renew_search_structures
from univert.search.place import Place
from univert.search.publications import forget_and_clean, publications, publish_latest, published_version
from univert.search.rebuilding import check_whole, finish_rebuilding, is_rebuilding
from univert.search.statistics import IndexStatistics, table_statistics
from univert.search.writer_lock import WriterLock, lock_for_writing

__all__ = ["IndexWriter", "Parts"]


class IndexWriter(AbstractContextManager["IndexWriter"]):
    """The one writer of an index.

    It changes a working copy that no reader sees, and each change is on disk, whole, when the call returns. `publish`
    shows the working copy to readers, in one step. A process that is killed loses at most the call it was in; the
    next writer goes on from there.

    Examples:
        >>> with IndexWriter.open("shop.index") as writer:  # doctest: +SKIP
        ...     writer.upsert(vectors, columns)
        ...     writer.delete(["old-1", "old-2"])
        ...     writer.publish()
    """

    def __init__(self, place: Place, lock: WriterLock, dataset: Any, exact_rows: int) -> None:
        """Internal: use `IndexWriter.open` or `IndexWriter.create`."""
        self._place = place
        self._lock = lock
        self._dataset = dataset
        self._exact_rows = exact_rows

    @classmethod
    def open(cls, uri: str | Path | Place, *, exact_rows: int = EXACT_ROWS) -> IndexWriter:
        """Become the writer of an index.

        Args:
            uri: a folder, or `s3://bucket/prefix`.
            exact_rows: build a vector index above this many rows.

        Raises:
            BadInputError: no index there, or another process is writing to it.
        """
        place = Place.of(uri)
        open_table(place)
        lock = lock_for_writing(place)
        try:
            dataset = open_table(place)
            bring_up_to_date(dataset)
        except BaseException:
            lock.release()
            raise
        return cls(place, lock, dataset, exact_rows)

    @classmethod
    def create(
        cls, uri: str | Path | Place, *, size: int, model_fingerprint: str, exact_rows: int = EXACT_ROWS
    ) -> IndexWriter:
        """Start an empty index. Readers find it when something has been published.

        Args:
            uri: a folder, or `s3://bucket/prefix`.
            size: length D of the vectors.
            model_fingerprint: of the model that makes them.
            exact_rows: build a vector index above this many rows.

        Raises:
            BadInputError: something is there, or another process is writing there.
        """
        place = Place.of(uri)
        rows = empty_index(size, model_fingerprint)
        if not place.is_free():
            raise BadInputError(f"{place.uri} exists already; choose another path")
        if place.folder is not None:
            place.folder.mkdir(parents=True, exist_ok=True)
        lock = lock_for_writing(place)
        try:
            if place.holds_index():  # another process was quicker
                raise BadInputError(f"{place.uri} exists already; choose another path")
            dataset = lance.write_dataset(rows, place.table_uri, mode="create", storage_options=place.storage_options)
        except BaseException:
            lock.release()
            raise
        return cls(place, lock, dataset, exact_rows)

    def __exit__(self, *raised: object) -> None:
        self.close()

    def close(self) -> None:
        """Let another process write. What was not published stays in the working copy."""
        self._lock.release()

    def abandon_if_empty(self) -> None:
        """Remove an index that was created and has never held anything."""
        if not len(self) and published_version(self._dataset) is None:
            self._lock.check()
            self._place.remove()

    @property
    def uri(self) -> str:
        """Where the index lies."""
        return self._place.uri

    @property
    def size(self) -> int:
        """Length D of a vector."""
        return int(self._dataset.schema.field("vector").type.list_size)

    @property
    def model_fingerprint(self) -> str:
        """The fingerprint of the model that made the vectors."""
        return self._metadata(MODEL_KEY, "")

    @property
    def compatible_models(self) -> list[str]:
        """Fingerprints of further models whose queries are answered."""
        return list(json.loads(self._metadata(COMPATIBLE_KEY, "[]")))

    @property
    def is_rebuilding(self) -> bool:
        """Whether the working copy was emptied by `start_over` and is not whole again: it cannot be published."""
        return is_rebuilding(self._dataset)

    def __len__(self) -> int:
        """Number of images in the working copy."""
        return int(self._dataset.count_rows())

    def columns(self, names: Sequence[str], ids: Sequence[str] | None = None) -> pa.Table:
        """Columns of the working copy, in no order.

        Args:
            names: of the columns.
            ids: only these images, those of them that are there.
        """
        return read_columns(self._dataset, names, ids)

    def upsert(self, vectors: ArrayLike, columns: pa.Table) -> int:
        """Add images, or renew those whose ids are there: all of these rows at once, or none.

        Args:
            vectors: (N, D) unit vectors.
            columns: N rows with `id` and `vertical`; see `univert.search.lance_schema.index_rows`.

        Returns:
            how many were added or renewed.

        Raises:
            BadInputError: rows that `index_rows` refuses, or an id twice among them.
        """
        return self.upsert_parts([(vectors, columns)])

    def upsert_parts(self, parts: Parts) -> int:
        """As `upsert`, a part at a time in memory and yet all at once in the index."""
        self._lock.check()
        count = merge(self._dataset, parts, self.size, before_commit=self._lock.check)
        compact(self._dataset)
        return count

    def append(self, vectors: ArrayLike, columns: pa.Table) -> None:
        """Add images that are known to be new: quicker than `upsert`, and an id that is there would be there twice."""
        self._lock.check()
        rows = index_rows(vectors, columns, self.size)
        if len(rows):
            self._dataset.insert(rows, mode="append")

    def delete(self, ids: Sequence[str]) -> int:
        """Delete images.

        Args:
            ids: of the images; those that are not there are passed over.

        Returns:
            how many were deleted.
        """
        before = len(self)
        for some in some_at_a_time(ids):
            self._lock.check()
            self._dataset.delete(sql_condition({"id": list(some)}))
        return before - len(self)

    def start_over(self, *, size: int, model_fingerprint: str) -> None:
        """Empty the working copy, for vectors of another model or length. Readers keep what is published.

        Until it is said to be whole again, by `finish_rebuilding` or `publish(rebuilt=True)`, it cannot be published.
        """
        self._lock.check()
        rows = empty_index(size, model_fingerprint)
        rows = rows.replace_schema_metadata({**rows.schema.metadata, REBUILDING_KEY: "yes"})
        self._dataset = lance.write_dataset(
            rows, self._place.table_uri, mode="overwrite", storage_options=self._place.storage_options
        )

    def record_compatible(self, models: Sequence[str]) -> None:
        """Let the queries of further models be answered: models that share the space of the first.

        Args:
            models: their fingerprints; those that are known already stay where they are.
        """
        self._lock.check()
        known = self.compatible_models
        known += [name for name in models if name not in (self.model_fingerprint, *known)]
        self._dataset.update_schema_metadata({COMPATIBLE_KEY: json.dumps(known)})

    def finish_rebuilding(self) -> None:
        """Say that what `start_over` began is whole: from now on it may be published."""
        self._lock.check()
        finish_rebuilding(self._dataset)

    def check_whole(self) -> None:
        """Raise BadInputError if the working copy `is_rebuilding`."""
        check_whole(self._dataset, self.uri)

    def publish(self, *, rebuilt: bool = False) -> int:
        """Show the working copy to readers, in one step.

        Before that, files are joined and the vector index is built or renewed, if it pays.

        Args:
            rebuilt: what `start_over` began is whole.

        Returns:
            the version that is published now; the one that was if nothing has changed.

        Raises:
            BadInputError: there are no images, or a rebuilding was interrupted and this is not its end.
        """
        self._lock.check()
        if not rebuilt:
            self.check_whole()
        if not len(self):
            raise BadInputError(f"{self.uri}: nothing to publish, the index would be empty")
        compact(self._dataset)
        renew_search_structures(self._dataset, self._exact_rows)
        finish_rebuilding(self._dataset)
        self._lock.check()
        return publish_latest(self._dataset)

    def roll_back(self, version: int) -> int:
        """Publish what a version held again, and go on from there.

        Args:
            version: one that was published; see `statistics`.

        Returns:
            the number under which it is published now: version numbers only rise.

        Raises:
            BadInputError: no such version.
        """
        self._lock.check()
        kept = [entry.version for entry in publications(self._dataset)]
        if version not in kept:
            there = ", ".join(map(str, kept)) or "none"
            raise BadInputError(f"{self.uri} has no published version {version} to roll back to; there are: {there}")
        self._restore(version)
        return publish_latest(self._dataset)

    def discard(self) -> None:
        """Take the working copy back to what is published."""
        self._lock.check()
        version = published_version(self._dataset)
        if version is not None and version != self._dataset.latest_version:
            self._restore(version)

    def compact(self) -> None:
        """Join small files, drop deleted rows, and remove versions that nobody can be reading.

        `upsert` and `publish` do so by themselves when it pays. If all was published, the joined files are, too.
        """
        self._lock.check()
        all_published = published_version(self._dataset) == self._dataset.version
        if compact(self._dataset, always=True) and all_published:
            publish_latest(self._dataset)
        forget_and_clean(self._dataset)

    def statistics(self) -> IndexStatistics:
        """What the index holds, as published and as being worked on."""
        return table_statistics(self._dataset, self._place)

    def _restore(self, version: int) -> None:
        self._dataset.checkout_version(version).restore()
        self._dataset.checkout_latest()

    def _metadata(self, key: str, default: str) -> str:
        found: bytes = (self._dataset.schema.metadata or {}).get(key.encode(), default.encode())
        return found.decode()
