"""Tables that users write, row by row: CSV, Parquet, or a JSON object a line."""

from __future__ import annotations

import codecs
import csv
import io
import itertools
import json
import math
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import IO, Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from univert.core.errors import BadInputError
from univert.data.rows import SourceProblem

PARQUET, CSV, JSON_LINES = (".parquet", ".pq"), (".csv", ".tsv", ".txt"), (".jsonl", ".ndjson")
SUFFIXES: Final = (*PARQUET, *CSV, *JSON_LINES)
"""The kinds of file that can be read."""

_HEADER_CHARACTERS: Final = 1 << 20

TableRows = Iterator[tuple[str, Mapping[str, Any]] | SourceProblem]
"""For each row where it stands (`table.csv:12`) and its fields by the column's name in lower case."""


def read_table(path: Path, wanted: Collection[str], check_columns: Callable[[list[str]], None]) -> TableRows:
    """Read a table in its order, in memory that does not grow with it.

    It is `.parquet` (`.pq`), `.csv` (`.tsv`, `.txt`; UTF-8, or UTF-16 with its mark; separated by commas, semicolons,
    tabs or bars; any line ends; the first line names the columns) or `.jsonl` (`.ndjson`). Names are in lower case;
    Parquet leaves all but the `wanted` ones unread. Before the first row is read, `check_columns` is given those
    that are there, and raises what is wrong with them.

    Raises:
        BadInputError: the suffix is unknown, or the file cannot be read.
    """
    suffix = path.suffix.lower()
    if suffix in PARQUET:
        return _parquet_rows(path, wanted, check_columns)
    if suffix in JSON_LINES:
        return _json_rows(path, check_columns)
    if suffix not in CSV:
        raise BadInputError(
            f"{path}: unknown kind of file {suffix!r}; give one of {', '.join(SUFFIXES)} (a spreadsheet saves CSV)"
        )
    with _open_text(path) as file:
        header = _csv_header(path, _csv_lines(file)[0])
    check_columns(header)
    return _csv_rows(path)


def count_table_rows(path: Path) -> int | None:
    """How many rows a table holds, where that is known without reading it."""
    if path.suffix.lower() not in PARQUET:
        return None
    try:
        return int(pq.read_metadata(path).num_rows)
    except (pa.ArrowException, OSError):
        return None


def csv_text(columns: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """A table as CSV, its header first."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue()


def cell_text(value: Any) -> str | None:
    """A field as text; empty and not-a-number are None; whole floats (gappy ids) lose the point.

    Bytes are read as UTF-8; those that are not it stay as surrogates, as in a file that is not.
    """
    if isinstance(value, bytes):
        value = value.decode("utf-8", "surrogateescape")
    if value is None or (isinstance(value, float | Decimal) and math.isnan(value)):
        return None
    if isinstance(value, float | Decimal) and value == value // 1:
        value = int(value)
    return str(value).strip() or None


def _open_text(path: Path) -> IO[str]:
    with path.open("rb") as file:
        mark = file.read(2)
    if mark in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        return path.open(encoding="utf-16", errors="replace")
    return path.open(encoding="utf-8-sig", errors="surrogateescape")


def _csv_lines(file: IO[str]) -> tuple[Any, int]:
    """The fields of the header and of each line after it; and how many lines stand before it."""
    header = file.readline(_HEADER_CHARACTERS)
    told = re.fullmatch("sep=(.)\n", header, re.IGNORECASE)  # a spreadsheet's note to itself
    if told:
        header = file.readline(_HEADER_CHARACTERS)
    delimiter = told[1] if told else max(",;\t|", key=header.count)
    return csv.reader(itertools.chain([header], file), delimiter=delimiter), 1 if told else 0


def _csv_header(path: Path, lines: Iterator[list[str]]) -> list[str]:
    try:
        header = [name.strip().lower() for name in next(lines)]
    except csv.Error:
        header = []
    if not any(header) or any("\0" in name for name in header):
        raise BadInputError(
            f"{path}: the first line is not a header; give a CSV file in UTF-8 whose first line names columns"
        )
    return header


def _csv_rows(path: Path) -> TableRows:
    with _open_text(path) as file:
        lines, before = _csv_lines(file)
        header = _csv_header(path, lines)
        while True:
            origin = f"{path}:{before + lines.line_num + 1}"
            try:
                fields = next(lines)
            except StopIteration:
                return
            except csv.Error as error:
                yield SourceProblem("bad line", origin, str(error), "quote the field, or remove the line")
                continue
            if not any(field.strip() for field in fields):
                continue
            if len(fields) >= len(header) and not any(fields[len(header) :]):
                yield origin, dict(zip(header, fields, strict=False))
            else:
                detail = f"{len(fields)} fields, but the header has {len(header)}"
                fix = "quote fields that contain the separator, and give every column a field"
                yield SourceProblem("bad line", origin, detail, fix)


def _json_rows(path: Path, check_columns: Callable[[list[str]], None]) -> TableRows:
    checked = False
    with path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            origin = f"{path}:{number}"
            try:
                values = json.loads(line)
            except (ValueError, RecursionError) as error:  # the latter of lists in lists in lists
                yield SourceProblem(
                    "bad line", origin, f"not JSON ({getattr(error, 'msg', error)})", "write one object a line"
                )
                continue
            if not isinstance(values, dict):
                yield SourceProblem("bad line", origin, "not an object", "write an object with a key for each column")
                continue
            values = {name.strip().lower(): value for name, value in values.items()}
            if not checked:
                check_columns(list(values))
                checked = True
            yield origin, values


def _parquet_rows(path: Path, wanted: Collection[str], check_columns: Callable[[list[str]], None]) -> TableRows:
    try:
        schema = pq.read_schema(path)
    except (pa.ArrowException, OSError) as error:
        raise BadInputError(f"{path}: not a readable Parquet file: {error}") from None
    check_columns([name.strip().lower() for name in schema.names])
    columns = {name: name.strip().lower() for name in schema.names if name.strip().lower() in wanted}
    return _read_parquet(path, columns)


def _read_parquet(path: Path, columns: dict[str, str]) -> TableRows:
    batch_rows = 16 if "image" in columns.values() else 1024  # images make rows heavy
    number = 0
    with pq.ParquetFile(path) as file:
        batches = file.iter_batches(batch_size=batch_rows, columns=list(columns))
        while True:
            try:
                batch = next(batches)
            except StopIteration:
                return
            except (pa.ArrowException, OSError) as error:
                raise BadInputError(f"{path}: damaged after row {number}: {error}; copy or export it again") from None
            for values in batch.rename_columns([columns[name] for name in batch.schema.names]).to_pylist():
                number += 1
                yield f"{path}:row {number}", values
