"""Settings and records: frozen dataclasses from TOML or plain values, with checks, and back."""

from __future__ import annotations

import dataclasses
import functools
import tomllib
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from univert.core.errors import BadInputError, nearest_name

C = TypeVar("C")


def from_plain(cls: type[C], values: Mapping[str, Any], *, where: str = "recipe") -> C:
    """Build a dataclass or a pydantic model from nested plain values, checking names, types and limits.

    Args:
        cls: its fields are plain values, paths, or further such classes, alone or in lists and dicts.
        values: as read from TOML or JSON; missing keys take their defaults.
        where: the name of the source, for messages.

    Raises:
        BadInputError: an unknown key (with the nearest valid key) or a value of the wrong type.
    """
    import pydantic

    _refuse_unknown_keys(cls, values, where, prefix="")
    try:
        validated: C = _adapter(typing.cast(Any, cls)).validate_python(values)
        return validated
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        if first["type"] == "value_error":  # the dataclass's own check, which names key and fix itself
            raise BadInputError(f"{where}: {first['msg'].removeprefix('Value error, ')}") from None
        key = ".".join(str(part) for part in first["loc"])
        found = f", got {first['input']!r}" if first["type"] != "missing" else ""
        raise BadInputError(f"{where}: {key or cls.__name__}: {first['msg']}{found}") from None


def to_plain(value: Any) -> Any:
    """Dataclasses, pydantic models and paths, alone or nested in lists and dicts, as values that JSON can hold.

    `from_plain` reads it back. Tuples become lists, paths strings, and keys of dicts strings.
    """
    import pydantic_core

    return pydantic_core.to_jsonable_python(value)


def config_from_toml(cls: type[C], path: Path) -> C:
    """Read a TOML file into a configuration dataclass; see `from_plain`.

    Raises:
        BadInputError: the file is missing, is not TOML, or holds unknown keys or bad values.
    """
    return from_plain(cls, _read_toml(path), where=str(path))


def read_settings(cls: type[C], path: Path | None, settings: Sequence[str]) -> C:
    """A recipe from a file (or from nothing) with single keys changed, as a command line gives them.

    Args:
        cls: the configuration dataclass.
        path: a TOML file; None means all defaults.
        settings: `key=value` with dots for tables; a value that is not TOML is taken as a string.

    Raises:
        BadInputError: as `config_from_toml`, or a setting without `=`.

    Example:
        >>> @dataclasses.dataclass(frozen=True, kw_only=True)
        ... class Speed:
        ...     rate: float = 0.1
        >>> read_settings(Speed, None, ["rate=0.5"])
        Speed(rate=0.5)
    """
    values = {} if path is None else _read_toml(path)
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise BadInputError(f"--set {setting}: write it as key=value")
        *tables, last = key.strip().split(".")
        place = values
        for table in tables:
            place = place.setdefault(table, {})
            if not isinstance(place, dict):
                raise BadInputError(f"--set {setting}: {table} is a value, not a table")
        try:
            place[last] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            place[last] = text.strip()
    return from_plain(cls, values, where="recipe" if path is None else str(path))


def config_to_toml(config: Any) -> str:
    """A configuration dataclass as TOML text that `config_from_toml` reads back to an equal value."""
    import tomli_w

    def without_none(value: Any) -> Any:  # TOML has none
        if isinstance(value, dict):
            return {key: without_none(item) for key, item in value.items() if item is not None}
        return value

    return tomli_w.dumps(without_none(to_plain(config)))


@functools.cache
def _adapter(cls: type[Any]) -> Any:
    import pydantic

    return pydantic.TypeAdapter(cls)


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInputError(f"{path}: no such recipe file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise BadInputError(f"{path}: not a readable TOML file: {error}") from None


def refuse_without_effect(config: Any, names: Sequence[str], *, where: str, because: str) -> None:
    """Refuse fields of a dataclass that differ from their defaults where nothing heeds them.

    `where` is its name within the recipe, with a dot, and `because` what makes them so: "where align is false".

    Raises:
        BadInputError: naming the first of them.
    """
    for each in dataclasses.fields(config):
        factory = each.default_factory
        default = each.default if factory is dataclasses.MISSING else factory()
        if each.name in names and getattr(config, each.name) != default:
            raise BadInputError(f"{where}{each.name} has no effect {because}; leave it out")


def _refuse_unknown_keys(cls: type[Any], values: Mapping[str, Any], where: str, prefix: str) -> None:
    if not dataclasses.is_dataclass(cls):
        return
    hints = typing.get_type_hints(cls)
    valid = [field.name for field in dataclasses.fields(cls)]
    for key, value in values.items():
        if key not in valid:
            near = nearest_name(key, valid)
            hint = f"did you mean {prefix}{near}?" if near else f"valid keys: {', '.join(valid)}"
            raise BadInputError(f"{where}: unknown key {prefix}{key}; {hint}")
        if isinstance(value, Mapping):
            _refuse_unknown_keys(hints[key], value, where, prefix=f"{prefix}{key}.")
