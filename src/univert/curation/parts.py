"""A table written in parts, each whole or not there at all, so that a killed job goes on after its last part."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from univert.core.files import write_atomic


class Parts:
    """A folder of Parquet files, `000000.parquet` and on.

    Args:
        folder: where they lie; made if it is not there.
        schema: of each part.
        inputs: a fingerprint of what the table is made from; parts made from something else are deleted.
    """

    def __init__(self, folder: Path, schema: pa.Schema, inputs: str) -> None:
        self.folder, self._schema = folder, schema
        made_from = folder / "inputs"
        if not made_from.exists() or made_from.read_text(encoding="utf-8") != inputs:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            write_atomic(made_from, inputs)
        self.count = 0
        while self._path(self.count).exists():
            self.count += 1

    def append(self, rows: pa.Table) -> None:
        """Write the next part."""
        content = io.BytesIO()
        pq.write_table(rows.cast(self._schema), content, compression="zstd")
        write_atomic(self._path(self.count), content.getvalue())
        self.count += 1

    def read(self, part: int, columns: list[str] | None = None) -> pa.Table:
        """One part."""
        return pq.read_table(self._path(part), columns=columns)

    def __iter__(self) -> Iterator[pa.Table]:
        return map(self.read, range(self.count))

    def _path(self, part: int) -> Path:
        return self.folder / f"{part:06d}.parquet"
