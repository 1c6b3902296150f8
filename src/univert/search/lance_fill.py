"""Filling a new index in one go: it appears when all is in it, or not at all."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
from numpy.typing import ArrayLike

from univert.core.errors import BadInputError
from univert.core.files import publishing
from univert.search.lance_open import open_table
from univert.search.lance_schema import check_unique, empty_index
from univert.search.place import Place
from univert.search.writer import IndexWriter


class LanceIndexWriter:
    """Fills a new index; see `univert.search.lance_store.LanceIndex.create`."""

    def __init__(self, writer: IndexWriter) -> None:
        self._writer = writer

    def add(self, vectors: ArrayLike, columns: pa.Table) -> None:
        """Append images.

        Args:
            vectors: (N, D) unit vectors.
            columns: N rows with `id` and `vertical`, and any of `product`, `brand`, `style`, `split`,
                `source`, `image` (encoded bytes), `uri`, `box` (x0, y0, x1, y1, pixels of the upright image).

        Raises:
            BadInputError: vectors that are not finite unit vectors of the index's size, another number of
                rows, unknown columns, or rows without id or vertical.
        """
        self._writer.append(vectors, columns)

    def finish(self) -> None:
        """Check that ids are unique, build the search structures that pay for this many rows, and publish.

        Raises:
            BadInputError: no rows, or an id twice.
        """
        if not len(self._writer):
            raise BadInputError("nothing to index: the catalogue (or the selection of it) has no images")
        check_unique(self._writer.columns(["id"])["id"])
        self._writer.publish(rebuilt=True)


@contextlib.contextmanager
def creating(
    target: Path, size: int, model_fingerprint: str, *, overwrite: bool, exact_rows: int
) -> Iterator[LanceIndexWriter]:
    """Fill a new index within the block; see `univert.search.lance_store.LanceIndex.create`."""
    empty_index(size, model_fingerprint)  # refuses what could not be an index
    place = Place.of(target)
    if overwrite and target.exists():
        if not place.holds_index():
            raise BadInputError(f"{target} is not an index, so it is not overwritten; choose another path")
        if _opens(place):
            with IndexWriter.open(place, exact_rows=exact_rows) as writer:
                yield from _replaced(writer, size, model_fingerprint)
            return
    with publishing(target, overwrite=overwrite) as folder:
        options = {"size": size, "model_fingerprint": model_fingerprint, "exact_rows": exact_rows}
        with IndexWriter.create(folder, **options) as writer:  # type: ignore[arg-type]
            filler = LanceIndexWriter(writer)
            yield filler
            filler.finish()


def _replaced(writer: IndexWriter, size: int, model_fingerprint: str) -> Iterator[LanceIndexWriter]:
    """The same index with other content: its readers go on with what they have open."""
    try:
        writer.start_over(size=size, model_fingerprint=model_fingerprint)
        filler = LanceIndexWriter(writer)
        yield filler
        filler.finish()
    except BaseException:
        writer.discard()
        raise


def _opens(place: Place) -> bool:
    try:
        open_table(place)
    except BadInputError:
        return False
    return True
