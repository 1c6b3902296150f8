"""Adding a vertical to an index that is in use: all of its images or none, and never an image twice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from univert.core.errors import BadInputError
from univert.search.lance_structures import EXACT_ROWS
from univert.search.writer import IndexWriter, Parts

__all__ = ["Parts", "add_vertical"]


def add_vertical(
    path: str | Path,
    vertical: str,
    ids: Sequence[str],
    parts: Callable[[], Parts],
    *,
    compatible_models: Sequence[str],
    exact_rows: int = EXACT_ROWS,
) -> int:
    """Add the images of one vertical to an index, then record the models that may search it from now on.

    Rows and models are published together: a search meets all of them or none. Killed on the way, nothing of it is
    seen, and doing it again finishes it. Done twice, it changes nothing; an image that is there already takes its new
    vector and columns. Who has the index open through `IndexReader` sees the change at once, others when they open it
    again.

    Args:
        path: the index, a folder or `s3://bucket/prefix`.
        vertical: the name of the vertical.
        ids: of all its images.
        parts: gives their vectors and columns; called only if there is something to add.
        compatible_models: fingerprints of the models whose queries are to be answered besides those that are now.
        exact_rows: build a vector index above this many rows.

    Returns:
        how many images were added or renewed.

    Raises:
        BadInputError: no index at `path`, another process is writing to it, it is being made anew and that was
            interrupted, an id twice, an id that the index has in another vertical, images of the vertical in the index
            that are not among `ids`, or rows that `IndexWriter.upsert` refuses. The index stays as it was.
    """
    with IndexWriter.open(path, exact_rows=exact_rows) as writer:
        writer.check_whole()
        known = (writer.model_fingerprint, *writer.compatible_models)
        missing = [name for name in compatible_models if name not in known]
        there = _check_ids(writer, vertical, ids)
        done = not missing and len(there) == len(ids)
        if not done:
            writer.upsert_parts(parts())
            writer.record_compatible(missing)
        writer.publish()
    return 0 if done else len(ids)


def _check_ids(writer: IndexWriter, vertical: str, ids: Sequence[str]) -> set[str]:
    """The ids of the vertical that are in the index; refuses what adding the rest would make a muddle of."""
    wanted = set(ids)
    if len(wanted) != len(ids):
        raise BadInputError(f"{vertical}: an id occurs more than once; ids must be unique in an index")
    rows = writer.columns(["id", "vertical"])
    places = dict(zip(rows["id"].to_pylist(), rows["vertical"].to_pylist(), strict=True))
    elsewhere = sorted(name for name in wanted if places.get(name, vertical) != vertical)
    if elsewhere:
        raise BadInputError(
            f"{writer.uri} has {len(elsewhere)} of these images in another vertical, such as {elsewhere[0]!r} in "
            f"{places[elsewhere[0]]!r}; give the new images ids of their own"
        )
    there = {name for name, place in places.items() if place == vertical}
    if there - wanted:
        raise BadInputError(
            f"{writer.uri} has {len(there - wanted)} images of {vertical} that the catalogue lacks, such as "
            f"{min(there - wanted)!r}: their vectors come from an older model and would not match the new ones; "
            "add them to the catalogue, or index without them"
        )
    return there
