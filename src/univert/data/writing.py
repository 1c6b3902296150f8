"""Writing a catalogue's Lance dataset as its rows come in, in bounded memory."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import lance
import pyarrow as pa

from univert.data.catalogue import BACKGROUND_KEY, FINGERPRINT_KEY, FORMAT_KEY, FORMAT_VERSION, SCHEMA
from univert.data.decode import Rgb

BATCH_ROWS = 1024
BATCH_BYTES = 16 * 1024 * 1024


class CatalogueWriter:
    """Writes records to a Lance dataset from a thread of its own, at most a few batches behind.

    Lance pulls its input; the thread turns that round, so that the caller's loop stays in the caller's
    thread, where Ctrl-C and exceptions arrive as usual. Use it as a context manager: leaving it by an
    exception stops the thread and abandons the dataset.

    Args:
        folder: an empty folder for the dataset.
        background_rgb: stored with the dataset.

    Attributes:
        rows: how many records were added.
    """

    def __init__(self, folder: Path, background_rgb: Rgb) -> None:
        self.rows = 0
        self._folder = str(folder)
        self._schema = SCHEMA.with_metadata(
            {FORMAT_KEY: FORMAT_VERSION, BACKGROUND_KEY: json.dumps(list(background_rgb))}
        )
        self._records: list[dict[str, Any]] = []
        self._bytes = 0
        self._batches: queue.Queue[pa.RecordBatch | None] = queue.Queue(1)
        self._abandoned = threading.Event()
        self._thread = ThreadPoolExecutor(1, "univert-write")

    def __enter__(self) -> CatalogueWriter:
        reader = pa.RecordBatchReader.from_batches(self._schema, self._taken())
        self._written = self._thread.submit(lance.write_dataset, reader, self._folder)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._abandoned.set()
        self._thread.shutdown()

    def add(self, record: dict[str, Any]) -> None:
        """Add one row, a value for every column of the schema.

        Raises:
            OSError: what was added before could not be written.
        """
        self._records.append(record)
        self._bytes += len(record["image"] or b"")
        self.rows += 1
        if len(self._records) >= BATCH_ROWS or self._bytes >= BATCH_BYTES:
            self._flush()

    def finish(self, fingerprint: str) -> None:
        """Write what is left, and store the content fingerprint, which makes the dataset a catalogue.

        Raises:
            OSError: it could not be written.
        """
        if self._records:
            self._flush()
        self._put(None)
        self._wait()
        try:
            lance.dataset(self._folder).update_schema_metadata({FINGERPRINT_KEY: fingerprint})
        except (RuntimeError, ValueError) as error:
            raise _as_os_error(error) from error

    def _flush(self) -> None:
        batch = pa.RecordBatch.from_pylist(self._records, schema=self._schema)
        self._records, self._bytes = [], 0
        self._put(batch)

    def _put(self, batch: pa.RecordBatch | None) -> None:
        while True:
            if self._written.done():  # only a failure ends it before its input does
                self._wait()
            try:
                return self._batches.put(batch, timeout=0.1)
            except queue.Full:
                continue

    def _wait(self) -> None:
        error = self._written.exception()
        if error is not None:
            raise _as_os_error(error)

    def _taken(self) -> Iterator[pa.RecordBatch]:
        while True:
            try:
                batch = self._batches.get(timeout=0.1)
            except queue.Empty:
                if self._abandoned.is_set():
                    raise OSError("the build was abandoned") from None
                continue
            if batch is None:
                return
            yield batch


def _as_os_error(error: BaseException) -> OSError:
    if isinstance(error, OSError) and error.errno is not None:
        return error
    # Lance's messages go on with where in its source the error arose
    return OSError(str(error).split(", /")[0].split(", <")[0])
