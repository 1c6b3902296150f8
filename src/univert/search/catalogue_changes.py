"""What has changed in a catalogue since it was indexed, and its images as rows of an index, some at a time.

A part is little enough to hold in memory, and enough to keep the network busy.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa

from univert.core.errors import BadInputError
from univert.core.files import fingerprint
from univert.core.protocols import Images
from univert.core.terminal import Advance
from univert.search.storage import CONTENT, TEXT_COLUMNS
from univert.search.writer import IndexWriter

PART_ROWS: Final = 4096
"""Images embedded and written together at most."""

FIRST_ROWS: Final = 64
PART_S: Final = 10.0
"""Whoever is stopped loses no more work than this, about."""

_IMAGES_AT_ONCE = 64
_BYTES_AT_ONCE = 64 << 20
_LABELS: Final = tuple(name for name in TEXT_COLUMNS if name != "id")


Box = Sequence[float] | None


def content_hash(image: bytes, box_xyxy_px: Box) -> str:
    """A hash of what a vector is made from: 32 hex digits.

    Args:
        image: the encoded image.
        box_xyxy_px: the item within it; None means the whole image.
    """
    return fingerprint(image, None if box_xyxy_px is None else [float(value) for value in box_xyxy_px])


def text_columns(catalogue: Images) -> pa.Table:
    """The columns of a catalogue that an index keeps."""
    return pa.table({name: pa.array(catalogue.column(name), pa.string()) for name in TEXT_COLUMNS})


class Part:
    """Some images of a catalogue, themselves `Images`.

    Args:
        catalogue: where they are from.
        columns: all its columns, see `text_columns`.
        positions: which of its images.
    """

    def __init__(self, catalogue: Images, columns: pa.Table, positions: Sequence[int]) -> None:
        self._catalogue = catalogue
        self._columns = columns
        self._positions = np.asarray(positions, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._positions)

    def column(self, name: str) -> np.ndarray:
        """A column, None as None."""
        values: np.ndarray = np.empty(len(self), dtype=object)
        values[:] = self._columns[name].take(self._positions).to_pylist()
        return values

    def image_bytes(self, positions: Sequence[int]) -> list[bytes]:
        """Encoded images at these positions of the part."""
        return self._catalogue.image_bytes(self._positions[list(positions)].tolist())

    def boxes(self, positions: Sequence[int]) -> list[tuple[float, float, float, float] | None]:
        """The item's box in each of these images; None for the whole image."""
        return self._catalogue.boxes(self._positions[list(positions)].tolist())

    def hashes(self) -> list[str]:
        """The content hash of each image."""
        return [value for _, _, table in self.tables() for value in table[CONTENT].to_pylist()]

    def tables(self) -> Iterator[tuple[int, int, pa.Table]]:
        """Rows for the index with their pictures, as (start, stop, table) of a bounded number of bytes."""
        start, held, hashes, held_bytes = 0, list[bytes | None](), list[str](), 0
        uris = self.column("uri")
        for first in range(0, len(self), _IMAGES_AT_ONCE):
            positions = range(first, min(first + _IMAGES_AT_ONCE, len(self)))
            images = self.image_bytes(positions)
            hashes += map(content_hash, images, self.boxes(positions))
            # Linked images stay where they are; the index keeps their place, as the catalogue does.
            held += [
                image if uris[position] is None else None for position, image in zip(positions, images, strict=True)
            ]
            held_bytes += sum(len(image) for image in held[first - start :] if image is not None)
            if held_bytes >= _BYTES_AT_ONCE or positions.stop == len(self):
                yield start, positions.stop, self._table(start, positions.stop, held, hashes)
                start, held, hashes, held_bytes = positions.stop, [], [], 0

    def _table(self, start: int, stop: int, images: list[bytes | None], hashes: list[str]) -> pa.Table:
        boxes = [None if box is None else list(box) for box in self.boxes(range(start, stop))]
        table = self._columns.take(self._positions[start:stop])
        table = table.append_column("image", pa.array(images, pa.binary()))
        table = table.append_column("box", pa.array(boxes, pa.list_(pa.float64())))
        return table.append_column(CONTENT, pa.array(hashes, pa.string()))


def parts_of(catalogue: Images, columns: pa.Table, positions: Sequence[int], rows: int | None = None) -> Iterator[Part]:
    """Some images of a catalogue, `rows` at a time; by default as many as the last ones allow in `PART_S`."""
    least = min(FIRST_ROWS, PART_ROWS)
    start, step = 0, rows or least
    while start < len(positions):
        began = time.monotonic()
        yield Part(catalogue, columns, positions[start : start + step])
        start += step
        if rows is None:
            a_second = step / max(time.monotonic() - began, 1e-6)
            step = max(least, min(PART_ROWS, round(PART_S * a_second)))


@dataclass(frozen=True, kw_only=True, slots=True)
class Changes:
    """How a catalogue differs from an index.

    Attributes:
        new: positions in the catalogue of images that the index lacks.
        changed: of those whose picture or box is another one; they need a new vector.
        relabelled: of those of which only other columns differ; they keep their vectors.
        missing: ids in the index that the catalogue lacks.
        unchanged: how many images are as they were.
    """

    new: list[int]
    changed: list[int]
    relabelled: list[int]
    missing: list[str]
    unchanged: int


def find_changes(writer: IndexWriter, catalogue: Images, columns: pa.Table, advance: Advance) -> Changes:
    """Compare a catalogue with the working copy of an index: pictures by a hash of their bytes.

    Args:
        writer: of the index.
        catalogue: a catalogue or a selection of one.
        columns: all its columns, see `text_columns`.
        advance: told of every image that needs no vector.

    Raises:
        BadInputError: an id occurs twice in the catalogue, or an image cannot be read.
    """
    stored = _stored(writer)
    ids = columns["id"].to_pylist()
    if len(set(ids)) != len(ids):
        twice = next(name for name in ids if ids.count(name) > 1)
        raise BadInputError(f"the id {twice!r} occurs more than once; ids must be unique in an index")
    new = [position for position, name in enumerate(ids) if name not in stored]
    known = [position for position, name in enumerate(ids) if name in stored]
    changed, relabelled, unchanged = list[int](), list[int](), 0
    positions = iter(known)
    for part in parts_of(catalogue, columns, known):
        names = part.column("id").tolist()
        labels = zip(*(part.column(name).tolist() for name in _LABELS), strict=True)
        for name, now, own in zip(names, part.hashes(), labels, strict=True):
            position = next(positions)
            before, label_hash = stored[name]
            if now != before:
                changed.append(position)
                continue
            advance(1)
            if hash(own) != label_hash:
                relabelled.append(position)
            else:
                unchanged += 1
    return Changes(
        new=new, changed=changed, relabelled=relabelled, missing=sorted(stored.keys() - set(ids)), unchanged=unchanged
    )


def _stored(writer: IndexWriter) -> dict[str, tuple[str | None, int]]:
    """Id -> the hash of its content, and a hash of its labels: a million of them must fit."""
    table = writer.columns(["id", CONTENT, *_LABELS])
    stored: dict[str, tuple[str | None, int]] = {}
    for batch in table.to_batches(max_chunksize=8192):
        names, contents, *labels = (column.to_pylist() for column in batch.columns)
        for name, content, *own in zip(names, contents, *labels, strict=True):
            stored[name] = content, hash(tuple(own))
    return stored
