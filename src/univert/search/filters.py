"""Filters of a search as a SQL condition: names checked against the columns, values quoted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

from univert.core.errors import BadInputError, did_you_mean
from univert.search.records import FilterValue, Where

FILTER_COLUMNS = ("id", "vertical", "product", "brand", "style", "split", "source")
"""The columns that a search can be narrowed by."""


def sql_condition(where: Where | None) -> str | None:
    """The condition that selects the rows that satisfy all filters; None for no filter.

    Args:
        where: column name -> a value, None (the column is empty), or a list of values any of which may match.
            Values are compared exactly, letter case included.

    Raises:
        BadInputError: an unknown column (the message names the nearest), an empty list, a value not text.

    Examples:
        >>> sql_condition({"vertical": "shoes", "brand": ["L'Art", None]})
        "(vertical IN ('shoes')) AND (brand IN ('L''Art') OR brand IS NULL)"
    """
    if not where:
        return None
    return " AND ".join(f"({_one_column(column, value)})" for column, value in where.items())


def check_column(column: str) -> str:
    """The name of a column that a search can be narrowed by, or a BadInputError that names the nearest."""
    if column not in FILTER_COLUMNS:
        raise BadInputError(f"cannot filter by {column!r}; {did_you_mean(str(column), FILTER_COLUMNS)}")
    return column


def check_vertical(where: Where | None, verticals: Sequence[str]) -> None:
    """Raise BadInputError for a vertical that is not in the index: a slip must not look like "nothing found"."""
    for value in _values(where["vertical"]) if where and "vertical" in where else ():
        if value not in verticals:
            raise BadInputError(f"no vertical {value!r} in the index; {did_you_mean(str(value), verticals)}")


def _one_column(column: str, value: FilterValue) -> str:
    check_column(column)
    values = _values(value)
    if not values:
        raise BadInputError(f"the filter on {column} has no values; give at least one, or leave the filter out")
    texts = [_quoted(column, item) for item in values if item is not None]
    terms = [f"{column} IN ({', '.join(texts)})"] if texts else []
    return " OR ".join([*terms, f"{column} IS NULL"] if None in values else terms)


def _values(value: FilterValue) -> list[str | None]:
    one = value is None or isinstance(value, str | bytes) or not isinstance(value, Iterable)
    return [cast("str | None", value)] if one else list(cast("Iterable[str | None]", value))


def _quoted(column: str, value: object) -> str:
    if not isinstance(value, str):
        raise BadInputError(f"the filter on {column} must be text, got {value!r}; write it as a string")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise BadInputError(f"the filter on {column} must be valid Unicode, got {value!r}") from None
    # SQL's only special character within single quotes is the single quote; a backslash stands for itself.
    return "'" + value.replace("'", "''") + "'"
