"""The rows of one version of an index, by name and by column; what is asked often is kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import pyarrow.compute as pc

from univert.core.errors import BadInputError
from univert.search.filters import sql_condition

_NAMES_AT_ONCE: Final = 1_000
_COUNTS_KEPT: Final = 4_096
_CONDITION_LENGTH: Final = 1_000
"""How many rows longer filters leave is not kept in mind: strangers write them."""


class Rows:
    """Rows of a table of images.

    Args:
        dataset: one version of the table.
        uri: what messages call the index.
    """

    def __init__(self, dataset: Any, uri: str) -> None:
        self._dataset = dataset
        self._uri = uri
        self._values: dict[str, list[tuple[str, int]]] = {}
        self._counts: dict[str, int] = {}

    def count(self, condition: str | None) -> int:
        """How many rows a condition leaves; None for all."""
        key = condition or ""
        count = self._counts.get(key)
        if count is None:
            count = int(self._dataset.count_rows(condition))
            if len(self._counts) >= _COUNTS_KEPT:
                self._counts = {}
            if len(key) <= _CONDITION_LENGTH:
                self._counts[key] = count
        return count

    def values(self, column: str) -> list[tuple[str, int]]:
        """The values of a column and how often each occurs, the most frequent first; empty ones do not count."""
        if column not in self._values:
            values = self._dataset.to_table(columns=[column])[column].drop_null()
            counted = [(entry["values"], entry["counts"]) for entry in pc.value_counts(values).to_pylist()]
            self._values[column] = sorted(counted, key=lambda entry: (-entry[1], entry[0]))
        return self._values[column]

    def named(self, ids: Sequence[str], columns: Sequence[str]) -> list[dict[str, Any]]:
        """Some columns of images, in the order asked for.

        Raises:
            BadInputError: an id that is not in the index.
        """
        found = self.found(ids, columns)
        missing = next((name for name in ids if name not in found), None)
        if missing is not None:
            raise BadInputError(f"no image {missing!r} in {self._uri}")
        return [found[name] for name in ids]

    def found(self, ids: Sequence[str], columns: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Some columns of those images that are there, by id."""
        found: dict[str, dict[str, Any]] = {}
        for start in range(0, len(ids), _NAMES_AT_ONCE):
            condition = sql_condition({"id": list(ids[start : start + _NAMES_AT_ONCE])})
            for row in self._dataset.to_table(columns=["id", *columns], filter=condition).to_pylist():
                found[row.pop("id")] = row
        return found
