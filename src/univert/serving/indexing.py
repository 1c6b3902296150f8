"""From a model and a catalogue to an index, a part of the catalogue at a time."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from univert.core.errors import BadInputError
from univert.core.progress import Advance, progress_bar
from univert.search.lance_growth import Parts, add_vertical
from univert.search.lance_store import LanceIndex
from univert.serving.ports import ImageEmbedder, Images

TEXT_COLUMNS = ("id", "vertical", "product", "brand", "style", "split", "source", "uri")
PART_ROWS = 1024
"""Images embedded and written together: enough to keep decoding and network busy, little enough to hold."""

_IMAGES_AT_ONCE = 64
_BYTES_AT_ONCE = 64 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexReport:
    """What `index_catalogue` made.

    Attributes:
        path: the index.
        images: how many images it holds.
        size: length of their vectors.
        model_fingerprint: of the model that made them.
        approximate: whether the index is large enough for approximate search.
        seconds: how long it took.
    """

    path: Path
    images: int
    size: int
    model_fingerprint: str
    approximate: bool
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values, for JSON."""
        return {**dataclasses.asdict(self), "path": str(self.path)}


def index_catalogue(
    model: ImageEmbedder,
    catalogue: Images,
    path: str | Path,
    *,
    overwrite: bool = False,
    batch_size: int = 64,
) -> IndexReport:
    """Embed the images of a catalogue and store vectors, columns and pictures in a searchable index.

    Vectors and pictures are held for one part of the catalogue at a time. The index appears at `path` when all is
    done; interrupted, nothing is left behind.

    Args:
        model: makes the vectors.
        catalogue: a catalogue or a selection of one.
        path: the folder of the index.
        overwrite: replace an index at `path`.
        batch_size: images that go through the network together.

    Raises:
        BadInputError: `path` exists and may not be replaced, the catalogue has no images, or an image cannot be read.
    """
    if not len(catalogue):
        raise BadInputError("nothing to index: the catalogue (or the selection of it) has no images")
    started = time.monotonic()
    model_fingerprint = model.fingerprint
    with (
        LanceIndex.create(
            path, size=model.size, model_fingerprint=model_fingerprint, overwrite=overwrite
        ) as writer,
        progress_bar("indexing", len(catalogue)) as advance,
    ):
        for vectors, table in _rows(model, catalogue, batch_size, advance):
            writer.add(vectors, table)
    index = LanceIndex.open(path)
    return IndexReport(
        path=Path(path),
        images=len(index),
        size=index.size,
        model_fingerprint=model_fingerprint,
        approximate=index.approximate,
        seconds=time.monotonic() - started,
    )


def add_vertical_to_index(
    model: ImageEmbedder,
    catalogue: Images,
    path: str | Path,
    vertical: str,
    *,
    compatible_models: Sequence[str],
    batch_size: int = 64,
) -> int:
    """Embed the images of a new vertical into an index that is in use, and let the models that grew search it.

    All of the images appear at once, each of them once, however often this is done.

    Args:
        model: the model that the vertical came in with.
        catalogue: the vertical's images, all of them.
        path: the index.
        vertical: its name.
        compatible_models: fingerprints of the models whose queries are to be answered from now on.
        batch_size: images that go through the network together.

    Returns:
        how many images were added or renewed; 0 if all was done before.

    Raises:
        BadInputError: see `univert.search.lance_growth.add_vertical`, or an image cannot be read.
    """
    with progress_bar(f"indexing {vertical}", len(catalogue)) as advance:

        def parts() -> Parts:
            return _rows(model, catalogue, batch_size, advance)

        ids = [str(name) for name in catalogue.column("id")]
        return add_vertical(path, vertical, ids, parts, compatible_models=compatible_models)


def _rows(model: ImageEmbedder, catalogue: Images, batch_size: int, advance: Advance) -> Parts:
    """Vectors and columns of a catalogue, a part at a time."""
    columns = pa.table({name: pa.array(catalogue.column(name), pa.string()) for name in TEXT_COLUMNS})
    for first in range(0, len(catalogue), PART_ROWS):
        part = _Part(catalogue, columns, first, min(first + PART_ROWS, len(catalogue)))
        vectors = model.embed_catalogue(part, batch_size)
        for start, stop, table in part.tables():
            yield vectors[start:stop], table
        advance(len(part))


class _Part:
    """Consecutive images of a catalogue, themselves `Images`."""

    def __init__(self, catalogue: Images, columns: pa.Table, start: int, stop: int) -> None:
        self._catalogue = catalogue
        self._columns = columns
        self._start = start
        self._stop = stop

    def __len__(self) -> int:
        return self._stop - self._start

    def column(self, name: str) -> np.ndarray:
        values: np.ndarray = np.empty(len(self), dtype=object)
        values[:] = self._columns[name].slice(self._start, len(self)).to_pylist()
        return values

    def image_bytes(self, positions: Sequence[int]) -> list[bytes]:
        return self._catalogue.image_bytes([self._start + int(position) for position in positions])

    def boxes(self, positions: Sequence[int]) -> list[tuple[float, float, float, float] | None]:
        return self._catalogue.boxes([self._start + int(position) for position in positions])

    def tables(self) -> Iterator[tuple[int, int, pa.Table]]:
        """Rows for the index with their pictures, as (start, stop, table) of a bounded number of bytes."""
        start, held, held_bytes = 0, list[bytes | None](), 0
        uris = self.column("uri")
        for position in range(0, len(self), _IMAGES_AT_ONCE):
            positions = range(position, min(position + _IMAGES_AT_ONCE, len(self)))
            # Linked images stay where they are; the index keeps their place, as the catalogue does.
            kept = [p for p in positions if uris[p] is None]
            images = dict(zip(kept, self.image_bytes(kept), strict=True)) if kept else {}
            held += [images.get(p) for p in positions]
            held_bytes += sum(map(len, images.values()))
            if held_bytes >= _BYTES_AT_ONCE or positions.stop == len(self):
                yield start, positions.stop, self._table(start, positions.stop, held)
                start, held, held_bytes = positions.stop, [], 0

    def _table(self, start: int, stop: int, images: list[bytes | None]) -> pa.Table:
        boxes = [None if box is None else list(box) for box in self.boxes(range(start, stop))]
        table = self._columns.slice(self._start + start, stop - start)
        table = table.append_column("image", pa.array(images, pa.binary()))
        return table.append_column("box", pa.array(boxes, pa.list_(pa.float64())))
