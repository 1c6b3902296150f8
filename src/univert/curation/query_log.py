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

_LARGEST: Final = 2**31 - 1


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
    many: list[Result] = []
    last: LoggedQuery | None = None
    for row in read_table(path, COLUMNS, functools.partial(_check_columns, path)):
        found = row if isinstance(row, SourceProblem) else _logged(*row)
        one_a_row = not isinstance(row, SourceProblem) and _is_one_picture(row[1])
        if isinstance(found, LoggedQuery) and one_a_row:
            if last is None or last.query != found.query:
                if last is not None:
                    yield _in_order(last, many)
                last, many = found, []
            many.extend(found.results or ())
            continue
        if last is not None:
            yield _in_order(last, many)
            last = None
        yield found
    if last is not None:
        yield _in_order(last, many)


def _check_columns(path: Path, names: Sequence[str]) -> None:
    if "query" not in names:
        near = nearest_name("query", names)
        hint = f"is it {near!r}? " if near else ""
        raise BadInputError(
            f"{path}: no column 'query'; {hint}a query log has it, and may have {', '.join(COLUMNS[1:])}"
        )


def _is_one_picture(values: Mapping[str, Any]) -> bool:
    return "id" in values and "results" not in values


def _logged(origin: str, values: Mapping[str, Any]) -> LoggedQuery | SourceProblem:
    query = cell_text(values.get("query"))
    if query is None or not is_utf8(query):
        return SourceProblem("no query", origin, "empty or not UTF-8", "leave the row out")
    listed = [values] if _is_one_picture(values) else values.get("results")
    try:
        if isinstance(listed, str | bytes):
            listed = json.loads(listed) if listed.strip() else None
        found = LoggedQuery(origin, query, _whole(values.get("count"), 1), None)
        return found if listed is None else _in_order(found, _results(listed))
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        fix = "count and rank are whole numbers, results a list of ids or of id, rank and title"
        return SourceProblem("bad row", origin, f"{query!r}: {error}", fix)


def _results(listed: Any) -> list[Result]:
    if not isinstance(listed, list):
        raise TypeError("results is not a list")
    found = []
    for place, one in enumerate(listed, start=1):
        fields = one if isinstance(one, Mapping) else {"id": one}
        name, title = (
            text if text and is_utf8(text) else None for text in map(cell_text, map(fields.get, ("id", "title")))
        )
        found.append(Result(name or "", _whole(fields.get("rank"), place), title))  # no picture has the id ""
    return found


def _whole(value: Any, default: int) -> int:
    number = float(default if value is None or value == "" else value)
    if math.isnan(number):
        return default
    if not number.is_integer():
        raise ValueError(f"{value!r} is not a whole number")
    return int(min(max(number, 1), _LARGEST))


def _in_order(logged: LoggedQuery, results: Sequence[Result]) -> LoggedQuery:
    """With its pictures: each once, at its best place."""
    best: dict[str, Result] = {}
    for result in sorted(results, key=lambda one: one.rank):
        best.setdefault(result.id, result)
    return logged._replace(results=tuple(best.values()))
