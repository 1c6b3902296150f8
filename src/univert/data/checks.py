"""The checks of a source row on its way into a catalogue: its fields, its image, and the rows before it."""

from __future__ import annotations

import hashlib
import math
import sqlite3
import stat
import unicodedata
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from univert.data.decode import BoxXyxyPx, check_image
from univert.data.image_problem import ImageProblem
from univert.data.rows import CONTROL, Item, SourceProblem, SourceRow, is_utf8, printable
from univert.data.splits import NO_SPLIT, SPLITS
from univert.data.suspicious import stands_for_missing

MAX_FILE_BYTES = 512 * 1024 * 1024
"""Larger files are refused unread."""

_BOX_SLACK_PX = 1.0
"""How far a box may reach over the image's edge: what rounding does; it is trimmed to the image."""

_NAMES: Final = ("id", "vertical", "product", "brand", "style", "source")


@dataclass(kw_only=True, slots=True)
class CheckedRow:
    """A source row, its image as encoded (None to be linked), boxes trimmed to that, and what keeps it out."""

    row: SourceRow
    content: bytes | None = None
    digest: str = ""
    box_xyxy_px: BoxXyxyPx | None = None
    items: tuple[Item, ...] | None = None
    ignored: tuple[BoxXyxyPx, ...] = ()
    problems: list[SourceProblem] = field(default_factory=list)


def check_row(row: SourceRow, *, link: bool) -> CheckedRow:
    """Check everything about a row that does not depend on other rows, its image decoded included.

    With `link` the result does not hold the image.
    """
    row = in_one_form(row)
    checked = CheckedRow(row=row, problems=_check_fields(row, link))
    if any(problem.kind in ("name not UTF-8", "no image") for problem in checked.problems):
        return checked
    try:
        content = row.image if row.image is not None else _read_file(row.path)
        size = check_image(content)
    except ImageProblem as problem:
        checked.problems.append(row.problem(problem.kind, problem.detail, problem.fix))
        return checked
    checked.digest = hashlib.blake2b(content, digest_size=16).hexdigest()
    checked.content = None if link else content
    if row.size is not None and row.size != size:
        detail = f"the image is {size[0]} x {size[1]} pixels upright, the source says {row.size[0]} x {row.size[1]}"
        fix = "give the image that the boxes were drawn on, or boxes in pixels of the upright image"
        checked.problems.append(row.problem("another size", detail, fix))
        return checked
    if row.box_xyxy_px is not None:
        checked.box_xyxy_px, bad_box = _check_box(row, row.box_xyxy_px, size)
        checked.problems += bad_box
    if row.items is not None:
        kept = []
        for item in row.items:
            box, bad_box = _check_box(row, item.box_xyxy_px, size)
            checked.problems += bad_box
            if box is not None:
                kept.append(replace(item, box_xyxy_px=box))
        checked.items = tuple(kept)
        trimmed = [_check_box(row, box, size) for box in row.ignored]
        checked.problems += [problem for _, bad_box in trimmed for problem in bad_box]
        checked.ignored = tuple(box for box, _ in trimmed if box is not None)
    return checked


def in_one_form(row: SourceRow) -> SourceRow:
    """The row with its names in Unicode's form NFC: systems write one look as several sequences of characters."""
    if row.items:
        items = tuple(
            replace(
                item,
                vertical=unicodedata.normalize("NFC", item.vertical),
                product=item.product and unicodedata.normalize("NFC", item.product),
            )
            for item in row.items
        )
        row = replace(row, items=items)
    texts = {name: getattr(row, name) for name in _NAMES}
    changed: dict[str, Any] = {
        name: unicodedata.normalize("NFC", text)
        for name, text in texts.items()
        if text is not None and not text.isascii()
    }
    return replace(row, **changed) if changed else row


def _check_fields(row: SourceRow, link: bool) -> list[SourceProblem]:
    problems: list[SourceProblem] = []
    texts = {name: getattr(row, name) for name in _NAMES}
    if row.id is None and row.path is not None:
        texts["id"] = str(row.path)
    problems += _check_texts(row, texts)
    if row.items is not None:
        problems += _check_items(row, row.items)
    elif not row.vertical:
        problems.append(row.problem("no vertical", "the vertical is empty", "give every image a vertical"))
    if row.split is not None and row.split not in (*SPLITS, NO_SPLIT):
        fix = f"use {', '.join(SPLITS)} or {NO_SPLIT}, or leave it empty"
        problems.append(row.problem("unknown split", f"split {row.split!r}", fix))
    if (row.path is None) == (row.image is None):
        problems.append(row.problem("no image", "exactly one of path and image must be given", "give one"))
    elif link and row.path is None:
        problems.append(row.problem("nothing to link", "the image has no file", "build without --link"))
    return problems


def _check_texts(row: SourceRow, texts: dict[str, str | None], whose: str = "") -> list[SourceProblem]:
    problems = []
    for name, text in texts.items():
        if text is not None and not is_utf8(text):
            problems.append(row.problem("name not UTF-8", f"{name} {text!r}{whose} is not valid UTF-8", "rename it"))
        elif text is not None and CONTROL.search(text):
            fix = "remove it; if there are several lines, look for a quotation mark that is not closed"
            problems.append(row.problem("control character", f"{name} {text!r}{whose} holds a control character", fix))
    return problems


def _check_items(row: SourceRow, items: tuple[Item, ...]) -> list[SourceProblem]:
    if row.vertical or row.product is not None or row.box_xyxy_px is not None:
        fix = "leave vertical, product and box of the photo empty, or its items"
        return [row.problem("scene with a product", "the photo has items, and a product of its own", fix)]
    if not items:
        return [row.problem("no items", "the photo shows no item", "give it items with a box and a vertical each")]
    problems = []
    for number, item in enumerate(items, start=1):
        if not item.vertical:
            problems.append(row.problem("no vertical", f"item {number} has no vertical", "give every item one"))
        problems += _check_texts(row, {"vertical": item.vertical, "product": item.product}, f" of item {number}")
    return problems


def _read_file(path: Path | None) -> bytes:
    assert path is not None
    try:
        status = path.stat()
        if stat.S_ISREG(status.st_mode) and status.st_size <= MAX_FILE_BYTES:
            return path.read_bytes()
    except FileNotFoundError:
        fix = "correct the path; a manifest's paths are relative to its folder"
        raise ImageProblem("missing file", f"there is no file {path}", fix) from None
    except OSError as error:
        raise ImageProblem("unreadable", f"{path}: {error.strerror}", "check the path and its rights") from None
    except ValueError:
        raise ImageProblem("missing file", f"{str(path)!r} is no file name", "correct the path") from None
    if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
        raise ImageProblem("unreadable", f"{path} is not a file", "give the path of an image file")
    detail = f"{status.st_size:,} bytes are over the limit of {MAX_FILE_BYTES:,}"
    raise ImageProblem("too large", detail, "make it smaller or remove it")


def _check_box(row: SourceRow, box: BoxXyxyPx, size: tuple[int, int]) -> tuple[BoxXyxyPx | None, list[SourceProblem]]:
    x0, y0, x1, y1 = map(float, box)
    width, height = size
    if not (all(math.isfinite(value) for value in box) and x0 < x1 and y0 < y1):
        fix = f"give x0 < x1 and y0 < y1 in pixels, or leave the {'box empty' if row.items is None else 'item out'}"
        return None, [row.problem("degenerate box", f"box {box} has no area", fix)]
    left, top, right, bottom = max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height))
    outside = max(left - x0, top - y0, x1 - right, y1 - bottom)
    if outside > _BOX_SLACK_PX or left >= right or top >= bottom:
        detail = f"box {box} reaches outside the image of {width} x {height} pixels"
        return None, [row.problem("box outside", detail, "give pixels of the upright image")]
    return (left, top, right, bottom), []


class RowsSoFar:
    """What the rows already accepted have claimed: their ids, and the vertical and split of each product.

    Kept in a private SQLite database that moves to disk as it grows, so that memory stays constant.
    """

    def __init__(self) -> None:
        self._database = sqlite3.connect("", isolation_level=None)
        for statement in (
            "PRAGMA journal_mode=OFF",
            "PRAGMA synchronous=OFF",
            "CREATE TABLE ids (id TEXT PRIMARY KEY, origin TEXT, content TEXT) WITHOUT ROWID",
            "CREATE TABLE products (name TEXT PRIMARY KEY, vertical TEXT, split TEXT, origin TEXT)",
            "BEGIN",
        ):
            self._database.execute(statement)

    def close(self) -> None:
        """Drop the database."""
        self._database.close()

    def repeats(self, image_id: str, content: str) -> str | None:
        """Where a row with this id and this content was before."""
        query = "SELECT origin FROM ids WHERE id = ? AND content = ?"
        found = self._database.execute(query, (image_id, content)).fetchone()
        return found[0] if found else None

    def accept(self, row: SourceRow, image_id: str, split: str | None, content: str) -> list[SourceProblem]:
        """Claim a row's id and its product's vertical and split, or say what stands against it and claim nothing."""
        problems = []
        found = self._database.execute("SELECT origin FROM ids WHERE id = ?", (image_id,)).fetchone()
        if found:
            detail = f"id {image_id!r} is also that of {found[0]}, which says something else"
            fix = "remove one of the two, or give each an id of its own"
            problems.append(row.problem("duplicate id", detail, fix))
        products = [(item.product, item.vertical) for item in row.items or ()] or [(row.product, row.vertical)]
        named = [(product, vertical) for product, vertical in dict.fromkeys(products) if product is not None]
        for product, vertical in named:
            problems += self._against_product(row, product, vertical, split)
        if not problems:
            origin = printable(row.origin)
            self._database.execute("INSERT INTO ids VALUES (?, ?, ?)", (image_id, origin, content))
            self._database.executemany(
                "INSERT INTO products VALUES (?, ?, ?, ?) "
                "ON CONFLICT (name) DO UPDATE SET split = coalesce(split, excluded.split)",
                [(product, vertical, split, origin) for product, vertical in named],
            )
        return problems

    def _against_product(self, row: SourceRow, product: str, kind: str, split: str | None) -> list[SourceProblem]:
        query = "SELECT vertical, split, origin FROM products WHERE name = ?"
        found = self._database.execute(query, (product,)).fetchone()
        if not found:
            return []
        vertical, earlier_split, origin = found
        if vertical != kind:
            detail = f"product {product!r} is in {kind!r} here and in {vertical!r} at {origin}"
            fix = "rename one of them: a product's name is unique over all verticals"
            if stands_for_missing(product):
                fix = "if it stands for a missing value, leave the field empty"
            return [row.problem("product in two verticals", detail, fix)]
        if split is not None and earlier_split not in (None, split):
            how = "" if row.split is not None else " (assigned, as none is given)"
            detail = f"product {product!r} is in {split}{how} here and in {earlier_split} at {origin}"
            fix = "give all its images the same split, or none of them any"
            return [row.problem("product in two splits", detail, fix)]
        return []
