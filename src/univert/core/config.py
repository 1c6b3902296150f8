"""Recipes: TOML to frozen dataclasses and back. An unknown key is an error that names the nearest valid one."""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from univert.core.errors import BadInputError

C = TypeVar("C")
_adapters: dict[type, Any] = {}  # what checks a class is costly to make


def config_from_mapping(cls: type[C], values: dict[str, Any], *, where: str = "recipe") -> C:
    """Build a frozen configuration dataclass from nested plain values, checking names, types and limits.

    Args:
        cls: a dataclass whose fields are plain values or further configuration dataclasses.
        values: as read from TOML or JSON; missing keys take their defaults.
        where: the name of the source, for messages.

    Raises:
        BadInputError: an unknown key (with the nearest valid key) or a value of the wrong type.
    """
    import pydantic

    if cls not in _adapters:
        _adapters[cls] = pydantic.TypeAdapter(cls)
    _refuse_unknown_keys(cls, values, where, prefix="")
    try:
        validated: C = _adapters[cls].validate_python(values)
        return validated
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        if first["type"] == "value_error":  # the dataclass's own check, which names key and fix itself
            raise BadInputError(f"{where}: {first['msg'].removeprefix('Value error, ')}") from None
        key = ".".join(str(part) for part in first["loc"])
        found = f", got {first['input']!r}" if first["type"] != "missing" else ""
        raise BadInputError(f"{where}: {key or cls.__name__}: {first['msg']}{found}") from None


def config_from_toml(cls: type[C], path: Path) -> C:
    """Read a TOML file into a configuration dataclass; see `config_from_mapping`.

    Raises:
        BadInputError: the file is missing, is not TOML, or holds unknown keys or bad values.
    """
    return config_from_mapping(cls, _read_toml(path), where=str(path))


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
    return config_from_mapping(cls, values, where="recipe" if path is None else str(path))


def config_to_mapping(config: Any) -> dict[str, Any]:
    """A configuration dataclass as nested plain values, nulls left out (TOML has none)."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items() if item is not None}
        if isinstance(value, (list, tuple)):
            return [plain(item) for item in value]
        return value

    result: dict[str, Any] = plain(dataclasses.asdict(config))
    return result


def config_to_toml(config: Any) -> str:
    """A configuration dataclass as TOML text that `config_from_toml` reads back to an equal value."""
    import tomli_w

    return tomli_w.dumps(config_to_mapping(config))


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInputError(f"{path}: no such recipe file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise BadInputError(f"{path}: not a readable TOML file: {error}") from None


def _refuse_unknown_keys(cls: type[Any], values: dict[str, Any], where: str, prefix: str) -> None:
    hints = typing.get_type_hints(cls)
    valid = [field.name for field in dataclasses.fields(cls)]
    for key, value in values.items():
        if key not in valid:
            near = difflib.get_close_matches(key, valid, n=1, cutoff=0.4)
            hint = f"did you mean {prefix}{near[0]}?" if near else f"valid keys: {', '.join(valid)}"
            raise BadInputError(f"{where}: unknown key {prefix}{key}; {hint}")
        if dataclasses.is_dataclass(hints[key]) and isinstance(value, dict):
            _refuse_unknown_keys(typing.cast(type[Any], hints[key]), value, where, prefix=f"{prefix}{key}.")


def refuse_without_effect(config: Any, names: Sequence[str], *, where: str, because: str) -> None:
    """Refuse settings that differ from their defaults where nothing heeds them.

    Args:
        config: a dataclass.
        names: of its fields.
        where: the name of the config within the recipe, with a dot; empty for the recipe itself.
        because: what makes them so, as in "where trunk is frozen".

    Raises:
        BadInputError: naming the first of them.
    """
    for each in dataclasses.fields(config):
        factory = each.default_factory
        default = each.default if factory is dataclasses.MISSING else factory()
        if each.name in names and getattr(config, each.name) != default:
            raise BadInputError(f"{where}{each.name} has no effect {because}; leave it out")
