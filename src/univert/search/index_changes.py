"""What has changed in a catalogue since it was indexed: images that are new, look different, or have other labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa

from univert.core.errors import BadInputError
from univert.core.protocols import Images
from univert.core.terminal import Advance
from univert.search.index_parts import content_hash, parts_of
from univert.search.lance_schema import CONTENT, TEXT_COLUMNS
from univert.search.writer import IndexWriter

_LABELS: Final = tuple(name for name in TEXT_COLUMNS if name != "id")

Labels = tuple[Any, ...]


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
        columns: all its columns, see `univert.search.index_parts.text_columns`.
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
    places = iter(known)
    for part in parts_of(catalogue, columns, known):
        names = part.column("id").tolist()
        labels = zip(*(part.column(name).tolist() for name in _LABELS), strict=True)
        unknown = _hashes_of_pictures(writer, [name for name in names if stored[name][0] is None])
        for name, now, own in zip(names, part.hashes(), labels, strict=True):
            position = next(places)
            before, label_hash = stored[name]
            if now != (unknown.get(name) if before is None else before):
                changed.append(position)
                continue
            advance(1)
            if before is None or hash(own) != label_hash:
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


def _hashes_of_pictures(writer: IndexWriter, ids: Sequence[str]) -> dict[str, str]:
    """For rows from before hashes were kept: those of the pictures in the index; linked ones have none."""
    rows = writer.columns(["id", "image", "box"], ids).to_pylist() if ids else []
    return {row["id"]: content_hash(row["image"], row["box"] or None) for row in rows if row["image"] is not None}
