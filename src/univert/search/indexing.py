"""A model and an index: a catalogue is indexed, what is new or different embedded."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from univert.core.errors import BadInputError
from univert.core.protocols import CatalogueEmbedder, Images
from univert.core.terminal import Advance, progress_bar
from univert.search.catalogue_changes import Part, find_changes, parts_of, text_columns
from univert.search.storage import Location
from univert.search.writer import IndexWriter, Parts


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexReport:
    """What `index_catalogue` did.

    Attributes:
        path: the index.
        version: the published version; None if it was not published.
        images: how many images it holds.
        added: images that it lacked.
        embedded_again: images that looked different before.
        relabelled: images of which only other columns had changed.
        deleted: images that the catalogue lacks.
        unchanged: images that are as they were.
        size: length D of the vectors.
        model_fingerprint: of the model that made them.
        approximate: whether the index has a vector index.
        seconds: how long it took.
    """

    path: str
    version: int | None
    images: int
    added: int
    embedded_again: int
    relabelled: int
    deleted: int
    unchanged: int
    size: int
    model_fingerprint: str
    approximate: bool
    seconds: float


def index_catalogue(
    model: CatalogueEmbedder,
    catalogue: Images,
    path: str | Path,
    *,
    overwrite: bool = False,
    delete_missing: bool = False,
    verticals: Sequence[str] | None = None,
    publish: bool = True,
    batch_size: int = 64,
) -> IndexReport:
    """Make an index hold the images of a catalogue: vectors, columns and pictures.

    Images that the index lacks, or whose picture or box has changed, are embedded; where only other columns have
    changed those are written anew. Each part of a thousand images is on disk when it is done, out of sight of readers;
    killed, the same call goes on from there. At the end readers see all of it in one step.

    Args:
        model: makes the vectors.
        catalogue: a catalogue or a selection of one.
        path: the index: a folder, or `s3://bucket/prefix`. It is created if it is not there.
        overwrite: embed everything anew, as for another model. Readers keep the old content until the new one is whole.
        delete_missing: delete images of the index that the catalogue lacks.
        verticals: with `delete_missing`, only images of these verticals; all by default.
        publish: show the result to readers.
        batch_size: images that go through the network together.

    Raises:
        BadInputError: the index was made with another model, another process is writing to it, what is at `path` is
            not an index, the catalogue has no images, an id twice, or an image that cannot be read; `verticals` of an
            index that an interrupted call with `overwrite` left half-way, without `overwrite`.
    """
    if not len(catalogue):
        raise BadInputError("nothing to index: the catalogue (or the selection of it) has no images")
    started = time.monotonic()
    with _writer(model, path, overwrite=overwrite) as writer:
        if verticals and not overwrite:
            writer.check_whole()  # an update of some verticals must not become all that there is
        columns = text_columns(catalogue)
        with progress_bar("indexing", len(catalogue)) as advance:
            changes = find_changes(writer, catalogue, columns, advance)
            for part in parts_of(catalogue, columns, [*changes.new, *changes.changed]):
                writer.upsert_parts(_with_vectors(part, model.embed_catalogue(part, batch_size)))
                advance(len(part))
        for part in parts_of(catalogue, columns, changes.relabelled):
            writer.upsert_parts(_with_vectors(part, writer.vectors(part.column("id").tolist())))
        if writer.is_rebuilding:
            # What this catalogue lacks was left by a call that was interrupted, in whatever vertical.
            delete_missing, verticals = True, None
        gone = changes.missing if delete_missing else []
        if verticals is not None and gone:
            rows = writer.columns(["id", "vertical"], gone).to_pylist()
            gone = [row["id"] for row in rows if row["vertical"] in verticals]
        deleted = writer.delete(gone) if gone else 0
        writer.finish_rebuilding()
        version = writer.publish() if publish else None
        stats = writer.stats()
    return IndexReport(
        path=str(path),
        version=version,
        images=stats.images,
        added=len(changes.new),
        embedded_again=len(changes.changed),
        relabelled=len(changes.relabelled),
        deleted=deleted,
        unchanged=changes.unchanged,
        size=stats.size,
        model_fingerprint=model.fingerprint,
        approximate=stats.approximate,
        seconds=time.monotonic() - started,
    )


def add_vertical_to_index(
    model: CatalogueEmbedder,
    catalogue: Images,
    path: str | Path,
    vertical: str,
    *,
    compatible_models: Sequence[str],
    batch_size: int = 64,
) -> int:
    """Embed the images of a new vertical into an index that is in use, and let the models that grew search it.

    Images and models are published together. Killed on the way, nothing of it is seen, and the same call finishes it.

    Args:
        model: the model that the vertical came in with.
        catalogue: the vertical's images, all of them.
        path: the index, a folder or `s3://bucket/prefix`.
        vertical: its name.
        compatible_models: fingerprints of the models whose queries are to be answered from now on.
        batch_size: images that go through the network together.

    Returns:
        how many images were added or renewed; 0 if all was done before.

    Raises:
        BadInputError: no index at `path`, another process is writing to it, it is being made anew and that was
            interrupted, an id that the index has in another vertical, images of the vertical in the index that are not
            in `catalogue`, or an image cannot be read. The index stays as it was.
    """
    ids = [str(name) for name in catalogue.column("id")]
    with IndexWriter.open(path) as writer, progress_bar(f"indexing {vertical}", len(catalogue)) as advance:
        writer.check_whole()
        known = (writer.model_fingerprint, *writer.compatible_models)
        missing = [name for name in compatible_models if name not in known]
        added = 0
        there = _check_vertical(writer, vertical, ids)
        if missing or there < len(ids):
            added = writer.upsert_parts(_rows(model, catalogue, batch_size, advance))
            writer.record_compatible(missing)
        writer.publish()
    return added


def _check_vertical(writer: IndexWriter, vertical: str, ids: Sequence[str]) -> int:
    """How many of the images are in the index; refuses what adding the rest would make a muddle of."""
    wanted = set(ids)
    rows = writer.columns(["id", "vertical"])
    indexed = dict(zip(rows["id"].to_pylist(), rows["vertical"].to_pylist(), strict=True))
    elsewhere = sorted(name for name in wanted if indexed.get(name, vertical) != vertical)
    if elsewhere:
        raise BadInputError(
            f"{writer.uri} has {len(elsewhere)} of these images in another vertical, such as {elsewhere[0]!r} in "
            f"{indexed[elsewhere[0]]!r}; give the new images ids of their own"
        )
    there = {name for name, own in indexed.items() if own == vertical}
    if there - wanted:
        raise BadInputError(
            f"{writer.uri} has {len(there - wanted)} images of {vertical} that the catalogue lacks, such as "
            f"{min(there - wanted)!r}: their vectors come from an older model and would not match the new ones; "
            "add them to the catalogue, or index without them"
        )
    return len(there)


def _writer(model: CatalogueEmbedder, path: str | Path, *, overwrite: bool) -> IndexWriter:
    """The writer of the index, which can take vectors of the model."""
    location = Location.of(path)
    if not location.holds_index():
        if not location.is_free():
            raise BadInputError(f"{location.uri} is not an index, so it is not overwritten; choose another path")
        return IndexWriter.create(location, size=model.size, model_fingerprint=model.fingerprint)
    writer = IndexWriter.open(location)
    try:
        same = (model.fingerprint, model.size) == (writer.model_fingerprint, writer.size)
        if overwrite:
            # interrupted half-way, it goes on: whatever is there was embedded by this model since it began
            if not (writer.is_rebuilding and same):
                writer.start_over(size=model.size, model_fingerprint=model.fingerprint)
        elif not same and model.fingerprint not in writer.compatible_models:
            raise BadInputError(
                f"{location.uri} was made with model {writer.model_fingerprint}, and the vectors of model "
                f"{model.fingerprint} cannot be compared with those; use the first model, or pass --overwrite to embed "
                "everything anew with the second"
            )
    except BaseException:
        writer.close()
        raise
    return writer


def _with_vectors(part: Part, vectors: np.ndarray) -> Parts:
    return ((vectors[start:stop], table) for start, stop, table in part.tables())


def _rows(model: CatalogueEmbedder, catalogue: Images, batch_size: int, advance: Advance) -> Parts:
    """Vectors and columns of a catalogue, a part at a time."""
    for part in parts_of(catalogue, text_columns(catalogue), range(len(catalogue))):
        yield from _with_vectors(part, model.embed_catalogue(part, batch_size))
        advance(len(part))
