"""Readers: one file a source layout, each yields `SourceRow`s, and a `Problem` for what cannot be one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from univert.core.errors import BadInputError
from univert.core.records import SourceRow
from univert.data.catalogue import is_catalogue
from univert.data.problems import Problem
from univert.data.readers.folder import count_folder, read_folder
from univert.data.readers.manifest import count_manifest, read_manifest

__all__ = ["count_rows", "open_source", "read_folder", "read_manifest"]

_TABLES = (".csv", ".tsv", ".parquet", ".pq")


def open_source(source: Path | str) -> Iterator[SourceRow | Problem]:
    """Pick the reader for a source: a folder tree, or a CSV or Parquet manifest.

    Raises:
        BadInputError: there is nothing at `source`, or no reader for it.
    """
    source = Path(source)
    if not source.exists():
        raise BadInputError(
            f"{source} does not exist; give a folder with vertical/product/image, or a manifest"
        )
    if source.is_dir():
        if is_catalogue(source):
            raise BadInputError(f"{source} is a catalogue already; use it as it is")
        return read_folder(source)
    if source.suffix.lower() not in _TABLES:
        raise BadInputError(
            f"{source}: unknown kind of source; give a folder, or one of {', '.join(_TABLES)}"
        )
    return read_manifest(source)


def count_rows(source: Path | str) -> int | None:
    """How many rows a source will yield, more or less, for a progress bar; null where unknown."""
    source = Path(source)
    return count_folder(source) if source.is_dir() else count_manifest(source)
