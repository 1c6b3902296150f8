"""A file of verified triplets as it is written, row by row: Parquet, CSV or JSON lines."""

from __future__ import annotations

import csv
import difflib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from univert.core.errors import BadInputError
from univert.data.rows import SourceProblem, is_utf8, printable

ROLES: Final = ("anchor", "positive", "negative")
"""The columns of the file, and what the three images of a triplet are."""

_PARQUET, _CSV, _JSONL = (".parquet", ".pq"), (".csv", ".tsv"), (".jsonl", ".ndjson")
_HEADER_BYTES: Final = 1 << 16


@dataclass(frozen=True, kw_only=True, slots=True)
class TripletRow:
    """One triplet as the file gives it.

    Attributes:
        origin: the file and its line or row, counted from 1.
        ids: of anchor, positive and negative; None where the cell is empty.
    """

    origin: str
    ids: tuple[str | None, str | None, str | None]


def read_triplet_rows(path: Path | str) -> Iterator[TripletRow | SourceProblem]:
    """Read triplets in the order of their file; further columns are left unread.

    Args:
        path: `.parquet` (`.pq`), `.csv` (`.tsv`; separated by commas, semicolons or tabs, the first line names the
            columns) or `.jsonl` (`.ndjson`; an object a line), each with `anchor`, `positive` and `negative`.

    Raises:
        BadInputError: there is no such file, its suffix is unknown, it cannot be read, or a column is missing.
    """
    path = Path(path)
    if not path.is_file():
        raise BadInputError(f"{path}: no such file; give one with the columns {', '.join(ROLES)}")
    readers = [(_PARQUET, _parquet), (_CSV, _csv), (_JSONL, _jsonl)]
    for suffixes, reader in readers:
        if path.suffix.lower() in suffixes:
            return reader(path)
    known = ", ".join(suffix for suffixes, _ in readers for suffix in suffixes)
    raise BadInputError(f"{path}: unknown kind of file {path.suffix!r}; give one of {known}")


def count_triplet_rows(path: Path) -> int | None:
    """How many rows a file holds, where that is known without reading it."""
    if path.suffix.lower() not in _PARQUET:
        return None
    try:
        return int(pq.read_metadata(path).num_rows)
    except (pa.ArrowException, OSError):
        return None


def _parquet(path: Path) -> Iterator[TripletRow | SourceProblem]:
    try:
        with pq.ParquetFile(path) as file:
            names = {name.strip().lower(): name for name in file.schema_arrow.names}
            _check_columns(path, list(names))
            number = 0
            for batch in file.iter_batches(columns=[names[role] for role in ROLES]):
                columns = [batch.column(names[role]).to_pylist() for role in ROLES]
                for values in zip(*columns, strict=True):
                    number += 1
                    yield _row(f"{path}:row {number}", values)
    except (pa.ArrowException, OSError) as error:
        raise BadInputError(f"{path}: not a readable Parquet file: {error}") from None


def _csv(path: Path) -> Iterator[TripletRow | SourceProblem]:
    with path.open("rb") as file:
        start = file.readline(_HEADER_BYTES)
    if start.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in start:
        raise BadInputError(f"{path}: not UTF-8 text; save it as UTF-8")
    text = start.decode("utf-8", "surrogateescape")
    delimiter = max((",", ";", "\t"), key=text.count)
    with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        lines = csv.reader(file, delimiter=delimiter)
        header = [name.strip().lower() for name in next(lines, [])]
        places = [header.index(role) for role in _check_columns(path, header)]
        while True:
            origin = f"{path}:{lines.line_num + 1}"
            try:
                fields = next(lines)
            except StopIteration:
                return
            except csv.Error as error:
                yield _bad_line(origin, str(error), "quote the field, or remove the line")
                continue
            if not any(field.strip() for field in fields):
                continue
            if len(fields) != len(header):
                detail = f"{len(fields)} fields, but the header has {len(header)}"
                yield _bad_line(origin, detail, "give every column a field")
                continue
            yield _row(origin, [fields[place] for place in places])


def _jsonl(path: Path) -> Iterator[TripletRow | SourceProblem]:
    checked = False
    with path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            origin = f"{path}:{number}"
            try:
                values = json.loads(line)
            except json.JSONDecodeError as error:
                yield _bad_line(origin, f"not JSON ({error.msg})", "write one object a line")
                continue
            if not isinstance(values, Mapping):
                yield _bad_line(origin, "not an object", f"write keys {', '.join(ROLES)}")
                continue
            if not checked:
                _check_columns(path, list(values))
                checked = True
            yield _row(origin, [values.get(role) for role in ROLES])


def _check_columns(path: Path, names: Sequence[str]) -> Sequence[str]:
    """The columns of a triplet, each of which must be there once."""
    for role in ROLES:
        if names.count(role) != 1:
            what = "no column" if role not in names else "more than one column"
            near = difflib.get_close_matches(role, [name for name in names if name not in ROLES], n=1)
            hint = f"is it {printable(near[0])!r}? " if near else ""
            there = printable(", ".join(names)) or "none"
            raise BadInputError(
                f"{path}: {what} {role!r}; {hint}name the columns {', '.join(ROLES)} (there are: {there})"
            )
    return ROLES


def _row(origin: str, values: Sequence[Any]) -> TripletRow | SourceProblem:
    anchor, positive, negative = (_id(value) for value in values)
    if not all(is_utf8(name) for name in (anchor, positive, negative) if name):
        return _bad_line(origin, "not UTF-8", "save the file as UTF-8")
    return TripletRow(origin=origin, ids=(anchor, positive, negative))


def _id(value: Any) -> str | None:
    """A cell as an id; empty and not-a-number are None; whole floats (gappy numbers, by pandas) lose the point."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip() or None


def _bad_line(origin: str, detail: str, fix: str) -> SourceProblem:
    return SourceProblem(kind="bad line", origin=origin, detail=detail, fix=fix)
