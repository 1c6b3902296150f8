"""Changing an index: images added, renewed and deleted out of sight of readers, then published in one step."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import filelock
import lance
import numpy as np
import pyarrow as pa
from jaxtyping import Float
from numpy.typing import ArrayLike

from univert.core.errors import BadInputError
from univert.search.storage import (
    COMPATIBLE_KEY,
    LOCK_FILE,
    MODEL_KEY,
    Location,
    empty_table,
    id_conditions,
    index_rows,
    index_schema,
    metadata,
    open_table,
    rows_by_id,
)
from univert.search.vector_index import as_matrix, compact, renew_search_structures
from univert.search.versions import (
    REBUILDING_KEY,
    IndexStats,
    is_rebuilding,
    publish_latest,
    published_version,
    published_versions,
    read_stats,
)

Parts = Iterable[tuple[ArrayLike, pa.Table]]
"""Vectors with their columns, some rows at a time; see `univert.search.storage.index_rows`."""


class IndexWriter(AbstractContextManager["IndexWriter"]):
    """The one writer of an index.

    It changes a working copy that no reader sees, and each change is on disk, whole, when the call returns. `publish`
    shows the working copy to readers, in one step. A process that is killed loses at most the call it was in; the
    next writer goes on from there. In a folder a second writer is refused while the first one lives. In an object store
    nobody can hold a lock for sure, so there the first of two to change something goes on, and the other is refused
    at its next change.

    Examples:
        >>> with Index.writer("shop.index") as writer:  # doctest: +SKIP
        ...     writer.upsert(vectors, columns)
        ...     writer.delete(["old-1", "old-2"])
        ...     writer.publish()
    """

    def __init__(self, location: Location, lock: filelock.BaseFileLock | None, dataset: Any) -> None:
        """Internal: use `IndexWriter.open` or `IndexWriter.create`."""
        self._location = location
        self._lock = lock
        self._dataset = dataset

    @classmethod
    def open(cls, uri: str | Path | Location) -> IndexWriter:
        """Become the writer of an index at a folder or `s3://bucket/prefix`.

        Raises:
            BadInputError: no index there, or another process is writing to it.
        """
        location = Location.of(uri)
        open_table(location)
        return cls._locked(location, lambda: open_table(location))

    @classmethod
    def create(cls, uri: str | Path | Location, *, size: int, model_fingerprint: str) -> IndexWriter:
        """Start an empty index; it can be opened when something has been published.

        Args:
            uri: a folder that does not exist yet, or `s3://bucket/prefix`.
            size: length D of the vectors.
            model_fingerprint: of the model that makes them; queries of another model will be refused.

        Raises:
            BadInputError: something is there, or another process is writing there.
        """
        location = Location.of(uri)
        rows, options = empty_table(size, model_fingerprint), location.storage_options
        taken = BadInputError(f"{location.uri} exists already; choose another path")
        if not location.is_free():
            raise taken

        def start() -> Any:
            try:
                if location.is_free():
                    return lance.write_dataset(rows, location.table_uri, mode="create", storage_options=options)
            except OSError:
                if not location.holds_index():
                    raise
            raise taken  # by another process that was quicker

        if location.folder is not None:
            location.folder.mkdir(parents=True, exist_ok=True)
        return cls._locked(location, start)

    @classmethod
    def _locked(cls, location: Location, dataset: Callable[[], Any]) -> IndexWriter:
        lock = None
        if location.folder is not None:
            lock = filelock.FileLock(location.folder / LOCK_FILE, timeout=0, thread_local=False)
            try:
                lock.acquire()
            except filelock.Timeout:
                raise BadInputError(
                    f"{location.uri} is being written by another process; wait until it is done, or end it"
                ) from None
        try:
            return cls(location, lock, dataset())
        except BaseException:
            if lock is not None:
                lock.release()
            raise

    def __exit__(self, kind: type[BaseException] | None, *raised: object) -> None:
        try:
            if kind is not None and self._holds_nothing():
                self._location.remove()
        finally:
            self.close()

    def close(self) -> None:
        """Let another process write. What was not published stays in the working copy."""
        if self._lock is not None:
            self._lock.release()

    @property
    def uri(self) -> str:
        """Where the index lies."""
        return self._location.uri

    @property
    def size(self) -> int:
        """Length D of a vector."""
        return int(self._dataset.schema.field("vector").type.list_size)

    @property
    def model_fingerprint(self) -> str:
        """The fingerprint of the model that made the vectors."""
        return metadata(self._dataset)[MODEL_KEY]

    @property
    def compatible_models(self) -> list[str]:
        """Fingerprints of further models whose queries are answered."""
        return list(json.loads(metadata(self._dataset).get(COMPATIBLE_KEY, "[]")))

    @property
    def is_rebuilding(self) -> bool:
        """Whether the working copy was emptied by `start_over` and is not whole again: it cannot be published."""
        return is_rebuilding(self._dataset)

    def __len__(self) -> int:
        """Number of images in the working copy."""
        return int(self._dataset.count_rows())

    def columns(self, names: Sequence[str], ids: Sequence[str] | None = None) -> pa.Table:
        """Columns of the working copy, in no order, of all images or of those of `ids` that are there."""
        if ids is None:
            return self._dataset.to_table(columns=list(names))
        return rows_by_id(self._dataset, ids, names)

    def vectors(self, ids: Sequence[str]) -> Float[np.ndarray, "N D"]:
        """The vectors of images of the working copy, in the order asked for."""
        rows = rows_by_id(self._dataset, ids, ["id", "vector"])
        places = {name: place for place, name in enumerate(rows["id"].to_pylist())}
        return as_matrix(rows["vector"].combine_chunks())[[places[name] for name in ids]]

    def upsert(self, vectors: ArrayLike, columns: pa.Table) -> int:
        """Add images, or renew those whose ids are there: all of these rows at once, or none.

        Args:
            vectors: (N, D) unit vectors.
            columns: N rows with `id` and `vertical`; see `univert.search.storage.index_rows`.

        Returns:
            how many were added or renewed.

        Raises:
            BadInputError: rows that `index_rows` refuses, an id twice among them, or another process has changed
                the index meanwhile.
        """
        return self.upsert_parts([(vectors, columns)])

    def upsert_parts(self, parts: Parts) -> int:
        """As `upsert`, a part at a time in memory and yet all at once in the index."""
        self._check_alone()
        failures: list[Exception] = []
        seen: set[str] = set()

        def batches() -> Iterator[pa.RecordBatch]:
            try:
                for vectors, columns in parts:
                    rows = index_rows(vectors, columns, self.size)
                    check_new(rows["id"].to_pylist(), seen)
                    yield from rows.to_batches()
            except Exception as failure:
                failures.append(failure)
                raise

        reader = pa.RecordBatchReader.from_batches(index_schema(self.size), batches())
        merge = self._dataset.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
        try:
            merge.conflict_retries(0).execute(reader)
        except Exception as error:
            if failures:  # the engine wraps what went wrong on our side in an error of its own
                raise failures[0] from None
            self._check_alone()
            raise error from None
        compact(self._dataset)
        return len(seen)

    def delete(self, ids: Sequence[str]) -> int:
        """Delete images, passing over ids that are not there; returns how many were deleted."""
        self._check_alone()
        before = len(self)
        for condition in id_conditions(ids):
            self._dataset.delete(condition)
        return before - len(self)

    def start_over(self, *, size: int, model_fingerprint: str) -> None:
        """Empty the working copy, for vectors of another model or length. Readers keep what is published.

        Until `finish_rebuilding` says that it is whole again, it cannot be published.
        """
        self._check_alone()
        rows = empty_table(size, model_fingerprint)
        rows = rows.replace_schema_metadata({**rows.schema.metadata, REBUILDING_KEY: "yes"})
        self._dataset = lance.write_dataset(
            rows, self._location.table_uri, mode="overwrite", storage_options=self._location.storage_options
        )

    def finish_rebuilding(self) -> None:
        """Say that what `start_over` began is whole: from now on it may be published."""
        if self.is_rebuilding:
            self._check_alone()
            self._dataset.update_schema_metadata({REBUILDING_KEY: None})

    def record_compatible(self, models: Sequence[str]) -> None:
        """Let the queries of further models be answered, given by fingerprint: they share the space of the first."""
        self._check_alone()
        known = self.compatible_models
        known += [name for name in models if name not in (self.model_fingerprint, *known)]
        self._dataset.update_schema_metadata({COMPATIBLE_KEY: json.dumps(known)})

    def check_whole(self) -> None:
        """Refuse a working copy that was left half-way.

        Raises:
            BadInputError: `is_rebuilding`; the message says how to go on and how to go back.
        """
        if not self.is_rebuilding:
            return
        version = published_version(self._dataset)
        back = f", or go back to what is published with: univert index roll-back INDEX {version}"
        raise BadInputError(
            f"{self.uri} is being made anew, and that was interrupted: it holds {len(self):,} images so far; run the "
            f"same univert index command with --overwrite again{'' if version is None else back}"
        )

    def publish(self) -> int:
        """Show the working copy to readers, in one step.

        Before that, small files are joined and the vector index is built or renewed, if it pays.

        Returns:
            the version that is published now; the one that was if nothing has changed.

        Raises:
            BadInputError: there are no images, a rebuilding was interrupted, or another process has changed the index.
        """
        self._check_alone()
        self.check_whole()
        if not len(self):
            raise BadInputError(f"{self.uri}: nothing to publish, the index would be empty")
        compact(self._dataset)
        renew_search_structures(self._dataset)
        return publish_latest(self._dataset)

    def roll_back(self, version: int) -> int:
        """Publish what a version held again, and go on from there.

        Args:
            version: one that was published; see `stats`.

        Returns:
            the number under which it is published now: version numbers only rise.

        Raises:
            BadInputError: no such version.
        """
        self._check_alone()
        kept = [entry.version for entry in published_versions(self._dataset)]
        if version not in kept:
            there = ", ".join(map(str, kept)) or "none"
            raise BadInputError(f"{self.uri} has no published version {version} to roll back to; there are: {there}")
        self._dataset.checkout_version(version).restore()
        self._dataset.checkout_latest()
        return publish_latest(self._dataset)

    def stats(self) -> IndexStats:
        """What the index holds, as published and as being worked on."""
        return read_stats(self._location)

    def _holds_nothing(self) -> bool:
        """Whether the index was started and came to nothing."""
        latest = self._dataset.latest_version == self._dataset.version
        return latest and not len(self) and published_version(self._dataset) is None

    def _check_alone(self) -> None:
        """Refuse to go on from a version that another process has left behind; see the text of the class."""
        if self._dataset.latest_version != self._dataset.version:
            raise BadInputError(
                f"{self.uri} has been changed by another process since this one began; run the same command again"
            )


def check_new(ids: Sequence[str], seen: set[str]) -> None:
    """Refuse an id that occurs twice, among these or before."""
    for name in ids:
        if name in seen:
            raise BadInputError(f"the id {name!r} occurs more than once; ids must be unique in an index")
        seen.add(name)
