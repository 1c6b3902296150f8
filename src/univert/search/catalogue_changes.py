"""What has changed in a catalogue since it was indexed, and its images as rows of an index, some at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa

from univert.core.files import fingerprint
from univert.core.protocols import Images
from univert.core.terminal import Advance
from univert.search.storage import CONTENT, TEXT_COLUMNS
from univert.search.writer import IndexWriter, check_new

PART_ROWS: Final = 1_024
"""Images embedded and written together: enough to keep a network busy, and what is lost at most when it is killed."""

_IMAGES_AT_ONCE = 64
_LABELS: Final = tuple(name for name in TEXT_COLUMNS if name != "id")


def content_hash(image: bytes, box_xyxy_px: Sequence[float] | None) -> str:
    """A hash of what a vector is made from: an encoded image, and the item's box within it; None: all of it."""
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
        """See `Images`."""
        values: np.ndarray = np.empty(len(self), dtype=object)
        values[:] = self._columns[name].take(self._positions).to_pylist()
        return values

    def image_bytes(self, positions: Sequence[int]) -> list[bytes]:
        """See `Images`."""
        return self._catalogue.image_bytes(self._positions[list(positions)].tolist())

    def boxes(self, positions: Sequence[int]) -> list[tuple[float, float, float, float] | None]:
        """See `Images`."""
        return self._catalogue.boxes(self._positions[list(positions)].tolist())

    def hashes(self) -> list[str]:
        """The content hash of each image."""
        return [value for _, _, table in self.tables() for value in table[CONTENT].to_pylist()]

    def tables(self) -> Iterator[tuple[int, int, pa.Table]]:
        """Rows for the index with their pictures, as (start, stop, table), so few that they fit into memory."""
        uris = self.column("uri")
        for start in range(0, len(self), _IMAGES_AT_ONCE):
            stop = min(start + _IMAGES_AT_ONCE, len(self))
            images, boxes = self.image_bytes(range(start, stop)), self.boxes(range(start, stop))
            # Linked images stay where they are; the index keeps their place, as the catalogue does.
            held = [image if uri is None else None for image, uri in zip(images, uris[start:stop], strict=True)]
            hashes = list(map(content_hash, images, boxes))
            table = self._columns.take(self._positions[start:stop])
            table = table.append_column("image", pa.array(held, pa.binary()))
            table = table.append_column("box", pa.array(boxes, pa.list_(pa.float64())))
            yield start, stop, table.append_column(CONTENT, pa.array(hashes, pa.string()))


def parts_of(catalogue: Images, columns: pa.Table, positions: Sequence[int]) -> Iterator[Part]:
    """Some images of a catalogue, `PART_ROWS` at a time."""
    for start in range(0, len(positions), PART_ROWS):
        yield Part(catalogue, columns, positions[start : start + PART_ROWS])


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
    check_new(ids, set())
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
