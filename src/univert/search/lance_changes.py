"""Changes to the table of an index, each of them one commit: whole or not there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

import pyarrow as pa
from numpy.typing import ArrayLike

from univert.core.errors import BadInputError
from univert.search.filters import sql_condition
from univert.search.lance_open import table_format
from univert.search.lance_schema import (
    CONTENT,
    FORMAT_KEY,
    FORMAT_VERSION,
    OLD_FORMAT,
    check_unique,
    index_rows,
    index_schema,
)
from univert.search.publications import published_version, set_published

Parts = Iterable[tuple[ArrayLike, pa.Table]]
"""Vectors with their columns, some rows at a time; see `univert.search.lance_schema.index_rows`."""

_NAMES_AT_ONCE: Final = 1_000


def merge(dataset: Any, parts: Parts, size: int, before_commit: Callable[[], None]) -> int:
    """Add or renew rows by their ids, read a part at a time.

    Args:
        dataset: the table of images.
        parts: the rows.
        size: length D of the vectors.
        before_commit: the last moment to raise an error that stops it.

    Returns:
        how many rows there were.

    Raises:
        BadInputError: rows that `index_rows` refuses, or an id twice among them.
    """
    failures: list[Exception] = []
    seen: set[str] = set()

    def batches() -> Iterator[Any]:
        try:
            for vectors, columns in parts:
                rows = index_rows(vectors, columns, size)
                _check_new(rows["id"], seen)
                yield from rows.to_batches()
            before_commit()
        except Exception as failure:
            failures.append(failure)
            raise

    reader = pa.RecordBatchReader.from_batches(index_schema(size), batches())
    builder = dataset.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
    try:
        builder.execute(reader)
    except Exception as error:
        # The engine wraps what went wrong on our side in an error of its own; the user is to see ours.
        raise failures[0] if failures else error from None
    return len(seen)


def read_columns(dataset: Any, names: Sequence[str], ids: Sequence[str] | None) -> pa.Table:
    """Columns of a table, in no order.

    Args:
        dataset: the table of images.
        names: of the columns.
        ids: only these images, those of them that are there; None for all.
    """
    if ids is None:
        return dataset.to_table(columns=list(names))
    parts = [
        dataset.to_table(columns=list(names), filter=sql_condition({"id": list(some)})) for some in some_at_a_time(ids)
    ]
    return pa.concat_tables(parts) if parts else dataset.schema.empty_table().select(list(names))


def bring_up_to_date(dataset: Any) -> None:
    """Give an index of the old format its published version and the column it lacks.

    Killed on the way, it is done again.
    """
    if table_format(dataset) != OLD_FORMAT:
        return
    if published_version(dataset) is None:
        set_published(dataset, int(dataset.version))
    if CONTENT not in dataset.schema.names:
        dataset.add_columns({CONTENT: "CAST(NULL AS string)"})
    dataset.update_schema_metadata({FORMAT_KEY: FORMAT_VERSION})


def some_at_a_time(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    """Names in lots that a condition can hold."""
    for start in range(0, len(ids), _NAMES_AT_ONCE):
        yield ids[start : start + _NAMES_AT_ONCE]


def _check_new(ids: pa.ChunkedArray, seen: set[str]) -> None:
    check_unique(ids)
    names = ids.to_pylist()
    twice = next((name for name in names if name in seen), None)
    if twice is not None:
        raise BadInputError(f"the id {twice!r} occurs more than once; ids must be unique in an index")
    seen.update(names)
