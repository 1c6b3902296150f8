"""A manifest as a source: a CSV or Parquet table with one row an image."""

from __future__ import annotations

import csv
import difflib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from univert.core.errors import BadInputError
from univert.data.catalogue import uri_to_path
from univert.data.decode import BoxXyxyPx
from univert.data.rows import SourceProblem, SourceRow, SourceRows, is_utf8, printable

_TEXT_COLUMNS: Final = ("vertical", "product", "brand", "style", "split", "source", "id")
_CORNERS: Final = ("x0", "y0", "x1", "y1")
_COLUMNS: Final = ("path", "uri", "image", *_TEXT_COLUMNS, "box", *_CORNERS)
_OTHER_WORDS: Final = {
    "vertical": ("category", "domain", "department", "verticals"),
    "path": ("image", "file", "filename", "file_name", "filepath", "image_path", "img_path", "image_file", "location"),
    "product": ("product_id", "item", "item_id", "sku", "label", "identity", "instance", "class", "products"),
}
_PARQUET_ROWS: Final = 256
_HEADER_BYTES: Final = 1 << 20


def read_manifest(source: Path | str) -> SourceRows:
    """Read a manifest, in its order.

    Columns: `vertical` and one of `path` (relative to the manifest, or absolute), `uri` (`file://`, or as
    path) and, in Parquet, `image` (the encoded bytes); any of `product`, `brand`, `style`, `split`, `source`,
    `id`; and `box` ("x0,y0,x1,y1", or a list) or four columns `x0 y0 x1 y1`, in pixels of the upright image.
    Other columns are left unread. An empty field is None. Without `id`, the path (and box) as written is the
    id.

    Args:
        source: a `.csv`, `.tsv` or `.parquet` file. Text is UTF-8; fields are separated by commas,
            semicolons or tabs.

    Raises:
        BadInputError: there is no such file, it is no table, or a column is missing or misspelt.
    """
    source = Path(source)
    if not source.is_file():
        raise BadInputError(f"{source}: no such file; give a CSV or Parquet manifest")
    if _is_parquet(source):
        return _read_parquet(source)
    header, delimiter = _csv_header(source)
    _check_columns(source, header, [name for name in _COLUMNS if name != "image"])
    return _read_csv(source, header, delimiter)


def count_manifest(source: Path) -> int | None:
    """How many rows a manifest holds, where that is known without reading it."""
    if not _is_parquet(source):
        return None
    try:
        return int(pq.read_metadata(source).num_rows)
    except (pa.ArrowException, OSError):
        return None


def _is_parquet(source: Path) -> bool:
    return source.suffix.lower() in (".parquet", ".pq")


def _csv_header(source: Path) -> tuple[list[str], str]:
    with source.open("rb") as file:
        line = file.readline(_HEADER_BYTES)
    if line.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise BadInputError(f"{source}: the text is UTF-16; save it as UTF-8")
    text = line.decode("utf-8-sig", "surrogateescape").strip()
    if not text or "\0" in text:
        raise BadInputError(f"{source}: the first line is not a header; give a CSV file whose first line names columns")
    delimiter = max((",", ";", "\t"), key=text.count)
    return [name.strip().lower() for name in next(csv.reader([text], delimiter=delimiter))], delimiter


def _check_columns(source: Path, header: Sequence[str], known: Sequence[str]) -> None:
    """Refuse a header that lacks a needed column, or has a misspelt one that would be left unread."""
    doubles = sorted({name for name in header if header.count(name) > 1 and name in known})
    if doubles:
        raise BadInputError(f"{source}: column {doubles[0]!r} is there more than once; remove one")
    if "vertical" not in header:
        raise BadInputError(f"{source}: no column 'vertical'{_nearest('vertical', header)}")
    places = [name for name in ("path", "uri", "image") if name in known]
    if not set(places) & set(header):
        others = " or ".join(repr(name) for name in places[1:])
        raise BadInputError(f"{source}: no column 'path' (or {others}){_nearest('path', header)}")
    corners = [name for name in _CORNERS if name in header]
    if corners and len(corners) < 4:
        missing = ", ".join(name for name in _CORNERS if name not in header)
        raise BadInputError(f"{source}: a box needs the columns x0, y0, x1 and y1, but {missing} is missing; add it")
    absent = [name for name in known if name not in header and len(name) > 2]
    for name in header:
        near = difflib.get_close_matches(name, absent, n=1, cutoff=0.8)
        if name not in known and near:
            raise BadInputError(
                f"{source}: unknown column {printable(name)!r}; did you mean {near[0]!r}? "
                "Rename it to that, or to something else to have it left unread"
            )


def _nearest(wanted: str, header: Sequence[str]) -> str:
    synonyms = [name for name in header if name in _OTHER_WORDS[wanted]]
    free = [name for name in header if name not in _COLUMNS and name]
    near = synonyms or difflib.get_close_matches(wanted, free, n=1, cutoff=0.5)
    there = printable(", ".join(header))
    if near:
        return f"; is it {printable(near[0])!r}? Rename that column to {wanted!r} (there are: {there})"
    return f"; add it (there are: {there})"


def _read_csv(source: Path, header: Sequence[str], delimiter: str) -> SourceRows:
    with source.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        lines = csv.reader(file, delimiter=delimiter)
        next(lines)
        first = lines.line_num + 1
        while True:
            origin = f"{source}:{first}"
            try:
                fields = next(lines)
            except StopIteration:
                return
            except csv.Error as error:
                fix = "quote the field, or remove the line"
                yield SourceProblem(kind="bad line", origin=origin, detail=str(error), fix=fix)
                first = lines.line_num + 1
                continue
            first = lines.line_num + 1
            if not any(field.strip() for field in fields):
                continue
            if len(fields) != len(header):
                detail = f"{len(fields)} fields, but the header has {len(header)}"
                fix = "quote fields that contain the separator, and give every column a field"
                yield SourceProblem(kind="bad line", origin=origin, detail=detail, fix=fix)
                continue
            yield _row(dict(zip(header, fields, strict=True)), origin, source.parent)


def _read_parquet(source: Path) -> SourceRows:
    try:
        schema = pq.read_schema(source)
    except (pa.ArrowException, OSError) as error:
        raise BadInputError(f"{source}: not a readable Parquet file: {error}") from None
    _check_columns(source, [name.lower() for name in schema.names], _COLUMNS)
    return _parquet_rows(source, [name for name in schema.names if name.lower() in _COLUMNS])


def _parquet_rows(source: Path, columns: list[str]) -> SourceRows:
    number = 0
    with pq.ParquetFile(source) as file:
        # images make rows heavy: read few at a time, so that memory stays small
        rows = 16 if "image" in map(str.lower, columns) else _PARQUET_ROWS
        batches = file.iter_batches(batch_size=rows, columns=columns)
        while True:
            try:
                batch = next(batches)
            except StopIteration:
                return
            except (pa.ArrowException, OSError) as error:
                raise BadInputError(f"{source}: damaged after row {number}: {error}; copy or export it again") from None
            for values in batch.rename_columns([name.lower() for name in batch.schema.names]).to_pylist():
                number += 1
                yield _row(values, f"{source}:row {number}", source.parent)


def _row(values: Mapping[str, Any], origin: str, base: Path) -> SourceRow | SourceProblem:
    def problem(kind: str, detail: str, fix: str) -> SourceProblem:
        return SourceProblem(kind=kind, origin=origin, detail=detail, fix=fix)

    texts = {name: _text(values.get(name)) for name in _TEXT_COLUMNS}
    place = _text(values.get("path")) or _text(values.get("uri"))
    if not all(is_utf8(text) for text in (place, *texts.values()) if text):
        return problem("name not UTF-8", "the line is not valid UTF-8", "save the manifest as UTF-8")
    image = _image(values.get("image"))
    if place is None and image is None:
        return problem("no image", "there is neither a path nor a uri nor an image", "give one")
    try:
        box = _box(values)
    except (ValueError, TypeError, KeyError):
        given = values.get("box") or [values.get(name) for name in _CORNERS]
        return problem("bad box", f"box {given!r}", 'write it as "x0,y0,x1,y1" in pixels, or leave it empty')
    path = None
    if image is None and place is not None:
        try:
            path = base / (uri_to_path(place) if "://" in place else place)
        except ValueError:
            return problem("unsupported uri", place, "copy the image to this machine and give its path")
    vertical, image_id = texts.pop("vertical"), texts.pop("id")
    if image_id is None and place is not None:
        image_id = place if box is None else f"{place}#{','.join(f'{side:g}' for side in box)}"
    return SourceRow(
        origin=origin, vertical=vertical or "", id=image_id, path=path, image=image, box_xyxy_px=box, **texts
    )


def _text(value: Any) -> str | None:
    """A field as text; empty and not-a-number are None; whole floats (gappy ids, by pandas) lose the point."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip() or None


def _image(value: Any) -> bytes | None:
    if isinstance(value, Mapping):  # the layout of Hugging Face datasets: {"bytes": ..., "path": ...}
        value = value.get("bytes")
    return value if isinstance(value, bytes) else None


def _box(values: Mapping[str, Any]) -> BoxXyxyPx | None:
    value = values.get("box")
    if isinstance(value, str) and value.strip():
        value = json.loads(f"[{value.strip().strip('[]()')}]")
    elif value is None or isinstance(value, str):
        corners: Iterable[Any] = [values.get(name) for name in _CORNERS]
        value = [_text(corner) for corner in corners]
        if not any(corner is not None for corner in value):
            return None
    x0, y0, x1, y1 = (float(corner) for corner in value)
    return x0, y0, x1, y1
