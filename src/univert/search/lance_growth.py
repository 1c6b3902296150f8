"""Adding a vertical to an index that is in use: all of its images or none, and never an image twice."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import lancedb
import pyarrow as pa
from numpy.typing import ArrayLike

from univert.core.errors import BadInputError
from univert.search.lance_store import EXACT_ROWS, LanceIndex
from univert.search.lance_writer import (
    COMPATIBLE_KEY,
    TABLE,
    build_search_structures,
    index_rows,
    index_schema,
)

KEEP_VERSIONS = datetime.timedelta(days=36_500)

Parts = Iterable[tuple[ArrayLike, pa.Table]]
"""Vectors with their columns, some rows at a time; see `LanceIndexWriter.add`."""


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

    The rows are committed at once: a search meets all of them or none. The models are recorded after them, so a kill
    in between costs no more than doing it again. Done again, it changes nothing; an image that is there already takes
    its new vector and columns. An index that is open elsewhere sees the change when it is opened again.

    Args:
        path: the index.
        vertical: the name of the vertical.
        ids: of all its images.
        parts: gives their vectors and columns; called only if there is something to add.
        compatible_models: fingerprints of the models whose queries are to be answered besides those that are now.
        exact_rows: build the graph for approximate search above this many rows.

    Returns:
        how many images were added or renewed.

    Raises:
        BadInputError: no index at `path`, an id twice, an id that the index has in another vertical, images of the
            vertical in the index that are not among `ids`, or rows that `LanceIndexWriter.add` refuses. The index stays
            as it was.
    """
    index = LanceIndex.open(path)
    missing = [name for name in compatible_models if name not in _models(index)]
    table = lancedb.connect(str(index.path)).open_table(TABLE)
    there = _check_ids(table, index.path, vertical, ids)
    done = not missing and len(there) == len(ids)
    if not done:
        _commit(table, parts(), index.size)
        known = [*index.compatible_models, *missing]
        table.to_lance().update_schema_metadata({COMPATIBLE_KEY: json.dumps(known)})
        table.checkout_latest()
    _renew_search_structures(table, approximate=index.approximate, exact_rows=exact_rows)
    return 0 if done else len(ids)


def _models(index: LanceIndex) -> list[str]:
    return [index.model_fingerprint, *index.compatible_models]


def _commit(table: Any, parts: Parts, size: int) -> None:
    """Add or renew rows in one commit, read a part at a time."""
    failures: list[Exception] = []

    def batches() -> Iterator[Any]:
        try:
            for vectors, columns in parts:
                yield from index_rows(vectors, columns, size).to_batches()
        except Exception as failure:
            failures.append(failure)
            raise

    reader = pa.RecordBatchReader.from_batches(index_schema(size), batches())
    try:
        table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all().execute(reader)
    except Exception as error:
        # The engine wraps what went wrong on our side in an error of its own; the user is to see ours.
        raise failures[0] if failures else error from None


def _check_ids(table: Any, path: Path, vertical: str, ids: Sequence[str]) -> set[str]:
    """The ids of the vertical that are in the index; refuses what adding the rest would make a muddle of."""
    wanted = set(ids)
    if len(wanted) != len(ids):
        raise BadInputError(f"{vertical}: an id occurs more than once; ids must be unique in an index")
    rows = table.search().select(["id", "vertical"]).to_arrow()
    places = dict(zip(rows["id"].to_pylist(), rows["vertical"].to_pylist(), strict=True))
    elsewhere = sorted(name for name in wanted if places.get(name, vertical) != vertical)
    if elsewhere:
        raise BadInputError(
            f"{path} has {len(elsewhere)} of these images in another vertical, such as {elsewhere[0]!r} in "
            f"{places[elsewhere[0]]!r}; give the new images ids of their own"
        )
    there = {name for name, place in places.items() if place == vertical}
    if there - wanted:
        raise BadInputError(
            f"{path} has {len(there - wanted)} images of {vertical} that the catalogue lacks, such as "
            f"{min(there - wanted)!r}: their vectors come from an older model and would not match the new ones; "
            "add them to the catalogue, or index without them"
        )
    return there


def _renew_search_structures(table: Any, *, approximate: bool, exact_rows: int) -> None:
    if approximate:
        # without this, files of versions older than a week would go that a server may still have open
        table.optimize(cleanup_older_than=KEEP_VERSIONS)
    elif table.count_rows() > exact_rows:
        build_search_structures(table)
