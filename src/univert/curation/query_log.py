"""A query log: what people searched for, how often, and which pictures they were shown."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from univert.core.errors import BadInputError, nearest_name
from univert.data.rows import SourceProblem, is_utf8
from univert.data.tables import cell_text, read_table

COLUMNS: Final = ("query", "count", "results", "id", "rank", "title")
"""`results` has all pictures of a query in one row; `id`, `rank` and `title` give one picture a row in its place."""


class Result(NamedTuple):
    """A picture that a query returned: its id, its place (1 is the first), and its title or alternative text."""

    id: str
    rank: int
    title: str | None = None


class LoggedQuery(NamedTuple):
    """One query of a log.

    Attributes:
        origin: where it stands, as `log.csv:12`.
        query: its text.
        asked: how often.
        results: the pictures that it returned, in the order of their ranks; None where the log does not say.
    """

    origin: str
    query: str
    asked: int
    results: tuple[Result, ...] | None


def read_query_log(path: Path | str) -> Iterator[LoggedQuery | SourceProblem]:
    """Read a log that is Parquet, CSV or JSON lines, in its order and in memory that does not grow with it.

    It has the column `query`, may have `count`, and has the pictures in one of two ways. `results` holds all of a
    query's: a list (in CSV as JSON) of ids, or of `{"id": ..., "rank": ..., "title": ...}`. Or each picture has a row
    of its own with `id` and perhaps `rank` and `title`; the rows of a query follow one another. Without a rank, the
    order is the rank. A log may also have no pictures at all.

    Yields:
        a query, or why a row cannot be used.

    Raises:
        BadInputError: there is no such file, it cannot be read, or the column `query` is missing.
    """
    path = Path(path)
    if not path.is_file():
        raise BadInputError(f"{path}: no such file; give a query log with the column 'query'")
    columns: list[str] = []
    rows = read_table(path, COLUMNS, functools.partial(_check_columns, path, columns))
    one_a_row = "id" in columns and "results" not in columns
    open_query: LoggedQuery | None = None
    for row in rows:
        found = row if isinstance(row, SourceProblem) else _logged(*row, one_a_row=one_a_row)
        if not one_a_row or isinstance(found, SourceProblem):
            yield found
        elif open_query is not None and open_query.query == found.query:
            results = (*(open_query.results or ()), *(found.results or ()))
            open_query = open_query._replace(results=results)
        else:
            if open_query is not None:
                yield _in_order(open_query)
            open_query = found
    if open_query is not None:
        yield _in_order(open_query)


def _check_columns(path: Path, found: list[str], names: Sequence[str]) -> None:
    if "query" not in names:
        near = nearest_name("query", names)
        hint = f"is it {near!r}? " if near else ""
        raise BadInputError(
            f"{path}: no column 'query'; {hint}a query log has it, and may have {', '.join(COLUMNS[1:])}"
        )
    found.extend(names)


def _logged(origin: str, values: Mapping[str, Any], *, one_a_row: bool) -> LoggedQuery | SourceProblem:
    query = cell_text(values.get("query"))
    if query is None or not is_utf8(query):
        return SourceProblem("no query", origin, "empty or not UTF-8", "leave the row out")
    try:
        count = _whole(values.get("count"), 1)
        if one_a_row:
            results: tuple[Result, ...] | None = _results([values])
            return LoggedQuery(origin, query, count, results)
        listed = values.get("results")
        if isinstance(listed, str | bytes):
            listed = json.loads(listed) if listed.strip() else None
        results = None if listed is None else _results(listed)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        fix = "count and rank are whole numbers, results a list of ids or of id, rank and title"
        return SourceProblem("bad row", origin, f"{query!r}: {error}", fix)
    return _in_order(LoggedQuery(origin, query, count, results))


def _results(listed: Sequence[Any]) -> tuple[Result, ...]:
    found = []
    for place, one in enumerate(listed, start=1):
        fields = one if isinstance(one, Mapping) else {"id": one}
        name = cell_text(fields["id"])
        if name is not None and is_utf8(name):
            title = cell_text(fields.get("title"))
            found.append(Result(name, _whole(fields.get("rank"), place), title if title and is_utf8(title) else None))
    return tuple(found)


def _whole(value: Any, default: int) -> int:
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return default
    if isinstance(value, float) and value != int(value):
        raise ValueError(f"{value!r} is not a whole number")
    return max(1, int(value))


def _in_order(logged: LoggedQuery) -> LoggedQuery:
    """Each picture once, at its best place."""
    if not logged.results:
        return logged
    best: dict[str, Result] = {}
    for result in sorted(logged.results, key=lambda one: one.rank):
        best.setdefault(result.id, result)
    return logged._replace(results=tuple(best.values()))
