"""Records that go to JSON and come back: frozen dataclasses of plain values, of lists, and of each other."""

from __future__ import annotations

from typing import Any, Self

from univert.core.config import from_plain, to_plain


class JsonRecord:
    """Base of a dataclass that is written as JSON; pydantic reads its types."""

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON; `from_dict` reads it back."""
        values: dict[str, Any] = to_plain(self)
        return values

    @classmethod
    def from_dict(cls, values: Any) -> Self:
        """What `to_dict` gave, back again; further keys are ignored.

        Raises:
            BadInputError: it is something else.
        """
        return from_plain(cls, values, where=f"what {cls.__name__}.to_dict gave", further_keys=True)
