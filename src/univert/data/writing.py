"""Writing a catalogue's Lance dataset as its rows come in, in bounded memory."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import lance
import pyarrow as pa

from univert.data.catalogue import BACKGROUND_KEY, FINGERPRINT_KEY, FORMAT_KEY, FORMAT_VERSION, SCHEMA
from univert.data.decode import Rgb

BATCH_ROWS = 1024
BATCH_BYTES = 16 * 1024 * 1024
_QUEUED_BATCHES = 1


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
        self._folder = folder
        self._schema = SCHEMA.with_metadata(
            {FORMAT_KEY: FORMAT_VERSION, BACKGROUND_KEY: json.dumps(list(background_rgb))}
        )
        self._records: list[dict[str, Any]] = []
        self._bytes = 0
        self._batches: queue.Queue[pa.RecordBatch | None] = queue.Queue(_QUEUED_BATCHES)
        self._abandoned = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._write, name="univert-write", daemon=True)

    def __enter__(self) -> CatalogueWriter:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread.is_alive():
            self._abandoned.set()
            self._thread.join()

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
        self._thread.join()
        if self._failure is not None:
            raise self._as_os_error(self._failure)
        try:
            lance.dataset(str(self._folder)).update_schema_metadata({FINGERPRINT_KEY: fingerprint})
        except (RuntimeError, ValueError) as error:
            raise self._as_os_error(error) from error

    def _flush(self) -> None:
        batch = pa.RecordBatch.from_pylist(self._records, schema=self._schema)
        self._records, self._bytes = [], 0
        self._put(batch)

    def _put(self, batch: pa.RecordBatch | None) -> None:
        while True:
            if self._failure is not None:
                raise self._as_os_error(self._failure)
            try:
                self._batches.put(batch, timeout=0.1)
                return
            except queue.Full:
                continue

    def _take(self) -> Iterator[pa.RecordBatch]:
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

    def _write(self) -> None:
        try:
            reader = pa.RecordBatchReader.from_batches(self._schema, self._take())
            lance.write_dataset(reader, str(self._folder))
        except BaseException as error:  # whatever it is, the caller's thread must hear of it
            self._failure = error

    def _as_os_error(self, error: BaseException) -> OSError:
        if isinstance(error, OSError) and error.errno is not None:
            return error
        text = str(error)
        # Lance's messages go on with where in its source the error arose
        return OSError(text.split(", /")[0].split(", <")[0])
