"""A manifest as a source: a table with one row an image."""

from __future__ import annotations

import functools
import json
import os
import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any, Final

from univert.core.errors import BadInputError, nearest_name
from univert.data.catalogue import uri_to_path
from univert.data.decode import BoxXyxyPx
from univert.data.rows import Item, SourceProblem, SourceRow, SourceRows, is_utf8, printable
from univert.data.tables import PARQUET, TableRows, cell_text, read_table

_TEXT_COLUMNS: Final = ("vertical", "product", "brand", "style", "split", "source", "id")
_CORNERS: Final = ("x0", "y0", "x1", "y1")
_COLUMNS: Final = ("path", "uri", "image", *_TEXT_COLUMNS, "box", *_CORNERS, "items", "ignored")
_OTHER_WORDS: Final = {
    "vertical": r"(category|categorie|kategorie|domain|department|section|vertical)s?(_?(id|name|label))?",
    "path": r"(image|img|file|photo|picture|location)(_?(path|name|file|location))?",
    "product": r"(product|item|article|artikel|sku|ean|gtin|upc|isbn|asin|mpn|bar_?code|object|instance|identity"
    r"|person|model|label|class|target)s?(_?(id|no|nr|num|number|name|code|key|label|index|idx))?",
    "split": r"(sub_?set|set|partition|fold|phase|usage)(_?name)?",
}
"""What others call our columns; a word's parts are joined by `_`."""

_OPTIONAL: Final = {"product": "to leave the images unlabelled", "split": "to have it left unread"}
"""Columns without which a build says nothing, though one under another name changes what is learned."""

_ROOT: Final = re.compile(r"/|(?P<windows>[A-Za-z]:[\\/]|\\\\)")


_UNREADABLE: Final = (ValueError, TypeError, KeyError, OverflowError, RecursionError)
"""What reading a box or items raises; the last two of endless numbers and lists in lists."""


def read_manifest(source: Path | str) -> SourceRows:
    """Read a manifest (see `univert.data.tables.read_table`), in its order.

    Columns: `vertical` and one of `path` (relative to the manifest, or absolute), `uri` (`file://`, or as
    path) and, in Parquet, `image` (the encoded bytes); any of `product`, `brand`, `style`, `split`, `source`,
    `id`; and `box` ("x0,y0,x1,y1", or a list) or four columns `x0 y0 x1 y1`, in pixels of the upright image.
    Scenes have `items` in place of `vertical`, `product` and `box`: a list (in CSV as JSON) of `{"box": [x0, y0, x1,
    y1], "vertical": ..., "product": ...}`, the product optional. `ignored` lists boxes of what is neither an item
    nor background.

    Other columns are left unread. An empty field is None. Without `id`, the path (and box) as written is the
    id.

    Raises:
        BadInputError: there is no such file, it is no table, or a column is missing or misspelt.
    """
    source = Path(source)
    if not source.is_file():
        raise BadInputError(f"{source}: no such file; give a CSV or Parquet manifest")
    known = [name for name in _COLUMNS if name != "image" or source.suffix.lower() in PARQUET]
    return _rows(source, read_table(source, known, functools.partial(_check_columns, source, known)))


def _rows(source: Path, table: TableRows) -> SourceRows:
    for item in table:
        yield item if isinstance(item, SourceProblem) else _row(item[1], item[0], source.parent)


def _check_columns(source: Path, known: Sequence[str], header: Sequence[str]) -> None:
    """Refuse a header that lacks a needed column, or has a misspelt one that would be left unread."""
    doubles = sorted({name for name in header if header.count(name) > 1 and name in known})
    if doubles:
        raise BadInputError(f"{source}: column {doubles[0]!r} is there more than once; remove one")
    if "vertical" not in header and "items" not in header:
        raise BadInputError(f"{source}: no column 'vertical'{_nearest('vertical', header)}")
    places = [name for name in ("path", "uri", "image") if name in known]
    if not set(places) & set(header):
        others = " or ".join(repr(name) for name in places[1:])
        raise BadInputError(f"{source}: no column 'path' (or {others}){_nearest('path', header)}")
    corners = [name for name in _CORNERS if name in header]
    if corners and len(corners) < 4:
        missing = ", ".join(name for name in _CORNERS if name not in header)
        raise BadInputError(f"{source}: a box needs the columns x0, y0, x1 and y1, but {missing} is missing; add it")
    absent = [name for name in known if name not in header and len(name) > 2 and name not in ("items", "ignored")]
    for name in header:
        near = nearest_name(name, absent, cutoff=0.8)
        if name not in known and near:
            raise BadInputError(
                f"{source}: unknown column {name!r}; did you mean {near!r}? "
                "Rename it to that, or to something else to have it left unread"
            )
    for wanted, otherwise in _OPTIONAL.items():
        near = _by_another_name(wanted, header)
        if wanted not in header and near and not (wanted == "product" and "items" in header):
            raise BadInputError(
                f"{source}: no column {wanted!r}; is it {near!r}? "
                f"Rename that column to {wanted!r}, or to something else {otherwise}"
            )


def _by_another_name(wanted: str, header: Sequence[str]) -> str | None:
    free = [name for name in header if name not in _COLUMNS]
    return next((n for n in free if re.fullmatch(_OTHER_WORDS[wanted], re.sub(r"[\W_]+", "_", n))), None)


def _nearest(wanted: str, header: Sequence[str]) -> str:
    free = [name for name in header if name not in _COLUMNS and name]
    near = _by_another_name(wanted, header) or nearest_name(wanted, free)
    there = printable(", ".join(header))
    if near:
        return f"; is it {near!r}? Rename that column to {wanted!r} (there are: {there})"
    return f"; add it (there are: {there})"


def _row(values: Mapping[str, Any], origin: str, base: Path) -> SourceRow | SourceProblem:
    texts = {name: cell_text(values.get(name)) for name in _TEXT_COLUMNS}
    place = cell_text(values.get("path")) or cell_text(values.get("uri"))
    if not all(is_utf8(text) for text in (place, *texts.values()) if text):
        return SourceProblem("name not UTF-8", origin, "the line is not valid UTF-8", "save the manifest as UTF-8")
    listed = next((name for name in _TEXT_COLUMNS if isinstance(values.get(name), list | dict)), None)
    if listed:
        return SourceProblem("bad value", origin, f"{listed} is {values[listed]!r}", "give one text or number")
    image = _image(values.get("image"))
    if place is None and image is None:
        return SourceProblem("no image", origin, "there is neither a path nor a uri nor an image", "give one")
    try:
        box = _box(values)
    except _UNREADABLE:
        given = values.get("box") or [values.get(name) for name in _CORNERS]
        return SourceProblem(
            "bad box", origin, f"box {given!r}", 'write it as "x0,y0,x1,y1" in pixels, or leave it empty'
        )
    items: tuple[Item, ...] | None = None
    ignored: tuple[BoxXyxyPx, ...] = ()
    if "items" in values and (values["items"] or not texts["vertical"]):
        try:
            items = _items(values["items"])
            ignored = _ignored(values.get("ignored"))
        except _UNREADABLE:
            how = 'write [{"box": [x0, y0, x1, y1], "vertical": "..."}, ...], the boxes in pixels'
            return SourceProblem("bad items", origin, f"items {str(values['items'])[:80]!r}", how)
    path = None
    if image is None and place is not None:
        try:
            written = str(uri_to_path(place)) if "://" in place else place
        except ValueError:
            return SourceProblem("unsupported uri", origin, place, "copy the image to this machine and give its path")
        found = as_on_disk(base, written)
        fix = _fix_for_root(base, written) if found is None else None
        if fix:
            return SourceProblem("missing file", origin, f"there is no file {written}", fix)
        path = base / (found or written)
        place = found if found is not None and "://" not in place else place
    vertical, image_id = texts.pop("vertical"), texts.pop("id")
    if image_id is None and place is not None:
        image_id = place if box is None else f"{place}#{','.join(f'{side:g}' for side in box)}"
    return SourceRow(
        origin=origin,
        vertical=vertical or "",
        id=image_id,
        path=path,
        image=image,
        box_xyxy_px=box,
        items=items,
        ignored=ignored,
        size=None,
        **texts,
    )


def as_on_disk(base: Path, written: str) -> str | None:
    """The path to a file as written, with slashes for backslashes, or in the other Unicode form; None: no such file.

    A path that can be written one way only is not looked at: whoever reads the file will see.
    """
    if written.isascii() and "\\" not in written and not _ROOT.match(written):
        return written
    ways = (written, written.replace("\\", "/"))
    forms = (unicodedata.normalize(form, way) for form in ("NFC", "NFD") for way in ways)
    return next((way for way in (*ways, *forms) if is_file(base / way)), None)


def _fix_for_root(base: Path, written: str) -> str | None:
    """What to write for a path from the root of another machine's disk, or into a folder that has moved."""
    root = _ROOT.match(written)
    if root is None:
        return None
    parts = PureWindowsPath(written).parts[1:]
    ends = ("/".join(parts[start:]) for start in range(len(parts)))
    there = next((end for end in ends if is_file(base / end)), None)
    if there:
        return f"write {there}, which is there"
    return "write it relative to the manifest, with slashes" if root["windows"] else None


def is_file(path: Path) -> bool:
    """Whether there is a file, whatever its name is written of."""
    return os.path.isfile(path)  # noqa: PTH113 - no error where a name is too long


def _image(value: Any) -> bytes | None:
    if isinstance(value, Mapping):  # the layout of Hugging Face datasets: {"bytes": ..., "path": ...}
        value = value.get("bytes")
    return value if isinstance(value, bytes) else None


def _box(values: Mapping[str, Any]) -> BoxXyxyPx | None:
    value = values.get("box")
    if isinstance(value, str) and value.strip():
        value = json.loads(f"[{value.strip().strip('[]()')}]")
    elif value is None or isinstance(value, str):
        value = [cell_text(values.get(name)) for name in _CORNERS]
        if not any(corner is not None for corner in value):
            return None
        value = [corner and corner.replace(",", ".") for corner in value]  # decimals as in most of Europe
    x0, y0, x1, y1 = (float(corner) for corner in value)
    return x0, y0, x1, y1


def _items(value: Any) -> tuple[Item, ...]:
    """The items of a scene from a list of plain values, or from JSON text; None and empty text mean none."""
    items = []
    for one in _listed(value):
        x0, y0, x1, y1 = (float(corner) for corner in one["box"])
        vertical, product = one.get("vertical"), one.get("product")
        if isinstance(vertical, list | dict) or isinstance(product, list | dict):
            raise TypeError("a vertical, and a product, is one text or number")
        box = (x0, y0, x1, y1)
        items.append(Item(box_xyxy_px=box, vertical=cell_text(vertical) or "", product=cell_text(product)))
    return tuple(items)


def _ignored(value: Any) -> tuple[BoxXyxyPx, ...]:
    """Boxes, likewise."""
    boxes = []
    for box in _listed(value):
        x0, y0, x1, y1 = (float(corner) for corner in box)
        boxes.append((x0, y0, x1, y1))
    return tuple(boxes)


def _listed(value: Any) -> list[Any]:
    found = json.loads(value or "[]") if isinstance(value, str) else value
    return [] if found is None else list(found)
