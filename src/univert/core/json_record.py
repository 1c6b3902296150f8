"""Records that go to JSON and come back: frozen dataclasses of plain values, of lists, and of each other."""

from __future__ import annotations

from typing import Any, Self

from univert.core.errors import BadInputError

_adapters: dict[type, Any] = {}  # what reads a class is costly to make


class JsonRecord:
    """Base of a dataclass that is written as JSON; pydantic reads its types."""

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON; `from_dict` reads it back."""
        values: dict[str, Any] = _adapter(type(self)).dump_python(self, mode="json")
        return values

    @classmethod
    def from_dict(cls, values: Any) -> Self:
        """What `to_dict` gave, back again; further keys are ignored.

        Raises:
            BadInputError: it is something else.
        """
        import pydantic

        try:
            record: Self = _adapter(cls).validate_python(values)
        except pydantic.ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise BadInputError(
                f"values must be what {cls.__name__}.to_dict gave, got something else ({where}: {first['msg']}); "
                "make it anew"
            ) from None
        return record


def _adapter(cls: type) -> Any:
    import pydantic

    if cls not in _adapters:
        _adapters[cls] = pydantic.TypeAdapter(cls)
    return _adapters[cls]
